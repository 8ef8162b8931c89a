"""A few inputs with the answers they got, kept small: how a device proves itself.

    golden/pixels.z              uint8 (N, h, w, C) of the image, before it is normalised; a pixel
                                 stands for `repeat` x `repeat` of the input (manifest: golden)
    golden/inputs/<tensor>.z     of every other input, (N, ...) in the engine's dtype
    golden/outputs/<tensor>.z    (N, ...) in the engine's dtype; of a large output (N, values),
                                 evenly spread over it

Each member is an .npy array, deflated (zlib); of pixels the difference to the pixel on the left is.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from edgecv.runtime import npy
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, joined_shape

PIXELS = "golden/pixels.z"
MOST = 64 << 20  # bytes that one member may hold
SAMPLES = 64


@dataclass(frozen=True)
class Goldens:
    """pixels: uint8 (N, h, w, C), or None where no input is an image; inputs: the others"""

    pixels: np.ndarray | None = None
    repeat: int = 1
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """The members of the bundle's file."""
        if self.pixels is not None:
            yield PIXELS, deflated(_differences(self.pixels))
        for kind, arrays in (("inputs", self.inputs), ("outputs", self.outputs)):
            for name, array in arrays.items():
                yield member(kind, name), deflated(array)

    def feed(self, image: str | None, preprocess: Preprocess) -> dict[str, np.ndarray]:
        """The inputs as the engine takes them, (N, ...). preprocess: ends in its own form"""
        found = dict(self.inputs)
        if self.pixels is not None and image is not None:
            whole = repeated(self.pixels, self.repeat, preprocess.size)
            found[image] = preprocess.normalise(whole)
        return found


def member(kind: str, tensor: str) -> str:
    """The member that holds a tensor: other characters than A-Z a-z 0-9 _ . - are %XX (UTF-8)."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
    safe = "".join(chr(b) if b in plain else f"%{b:02X}" for b in tensor.encode())
    return f"golden/{kind}/{safe}.z"


def read(
    members: Mapping[str, bytes],
    repeat: int,
    image: str | None,
    preprocess: Preprocess,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Goldens:
    """What the members of a bundle hold. Raises ValueError, which names the member."""
    pixels = None
    if PIXELS in members:
        sides = tuple(-(-n // repeat) for n in preprocess.size)
        pixels = _sums(_inflated(members, PIXELS, "uint8", (*sides, preprocess.channels)))
    found: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}}
    for kind, specs in (("inputs", inputs), ("outputs", outputs)):
        for spec in specs:
            if kind == "inputs" and spec.name == image and pixels is not None:
                continue
            name = member(kind, spec.name)
            found[kind][spec.name] = _inflated(
                members, name, spec.dtype, joined_shape(spec), kind == "outputs"
            )
    return Goldens(pixels, repeat, found["inputs"], found["outputs"])


def deflated(array: np.ndarray) -> bytes:
    return zlib.compress(npy.written(array), 9)


def _inflated(
    members: Mapping[str, bytes], name: str, dtype: str, shape: tuple[int, ...], some: bool = False
) -> np.ndarray:
    """some: fewer values of each sample may be kept, (N, values)"""
    if name not in members:
        raise ValueError(f"{name} is missing")
    most = min(MOST, SAMPLES * prod(shape) * np.dtype(dtype).itemsize + 1024)
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(members[name], most)
        if not reader.eof:
            raise ValueError("larger than it may be, or cut short")
        array = npy.read(data)
    except (ValueError, TypeError, zlib.error):
        raise ValueError(f"{name} is not a plain .npy array") from None
    fits = array.shape[1:] == shape
    kept = some and array.ndim == 2 and 0 < array.shape[1] <= prod(shape)
    if array.dtype.name != dtype or not (array.ndim and (fits or kept)):
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}, which does not match {dtype} {shape}"
        )
    return array


def repeated(pixels: np.ndarray, repeat: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (N, height, width, C), each pixel `repeat` times along both sides."""
    if repeat == 1:
        return pixels
    whole = pixels.repeat(repeat, axis=1).repeat(repeat, axis=2)
    return whole[:, : size[0], : size[1]]


def thinned(values: np.ndarray, kept: int) -> np.ndarray:
    """(N, ...) as (N, kept), evenly spread."""
    rows = values.reshape(len(values), -1)
    return rows[:, kept_places(rows.shape[1], kept)]


def kept_places(size: int, kept: int) -> np.ndarray:
    """Which of so many values are kept."""
    return np.linspace(0, size - 1, kept).astype(int)


def _differences(pixels: np.ndarray) -> np.ndarray:
    found = pixels.copy()
    found[:, :, 1:] -= pixels[:, :, :-1]  # modulo 256
    return found


def _sums(differences: np.ndarray) -> np.ndarray:
    return np.add.accumulate(differences, axis=2, dtype=np.uint8)
