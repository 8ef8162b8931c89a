"""The kernels from Python: one layer at a time, on packed words or on floats.

Raises MissingExtraError where the library was not built or does not load; `edgecv doctor` tells.
EDGECV_KERNELS names another library than the one in the package.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.binary.build import NAME, digest
from edgecv.binary.device_kernels import built
from edgecv.binary.reference import Shape
from edgecv.errors import EngineError, MissingExtraError

CURE = "install gcc or clang, then: python -m edgecv.binary.build"
NAMED = "EDGECV_KERNELS"
ALIGNMENT = 64
ERRORS = {
    1: "a size that the kernels do not take",
    2: "out of memory",
    3: "no such instruction set",
}


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            "height", "width", "channels", "filters", "kernel_h", "kernel_w", "stride_h",
            "stride_w", "dilation_h", "dilation_w", "pad_top", "pad_left", "pad_bottom",
            "pad_right", "groups",
        )
    ]  # fmt: skip


class _Output(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_void_p) for n in
          ("raw", "real", "bits", "scale", "bias", "add", "more", "before", "slope", "after",
           "least", "border", "flip")),
        ("channels_last", ctypes.c_int32),
    ]  # fmt: skip


def found() -> Path | None:
    """The library's file; None where it was not built. On a device the first call builds it."""
    named = os.environ.get(NAMED)
    path = Path(named or Path(__file__).with_name(NAME))
    if path.is_file():
        return path
    return None if named else built()


def cure() -> str:
    """How to come by kernels that load."""
    named = os.environ.get(NAMED)
    return f"{NAMED} names {named}: unset it, or name a library that was built" if named else CURE


@cache
def library() -> Any:
    """The shared library, loaded once. Raises MissingExtraError: not there, or does not load."""
    path = found()
    if path is None:
        raise MissingExtraError("binary kernels", "are not built", cure())
    try:
        made = ctypes.CDLL(str(path))
    except OSError as e:
        raise unloadable(path, str(e)) from None
    made.xnor_sets.restype = ctypes.POINTER(ctypes.c_char_p)
    made.xnor_digest.restype = ctypes.c_char_p
    made.xnor_scratch.restype = ctypes.c_size_t
    made.xnor_scratch.argtypes = [ctypes.c_void_p]
    made.xnor_layer_free.argtypes = [ctypes.c_void_p]
    made.xnor_run.argtypes = [ctypes.c_void_p] * 4
    made.xnor_layer_new.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    ]  # fmt: skip
    return made


def unloadable(path: Path | str, said: str) -> MissingExtraError:
    """The error for a library that is there and does not load."""
    return MissingExtraError(f"binary kernels {path}", f"cannot be loaded: {said}", cure())


def sets() -> list[str]:
    """Instruction sets of this library that this processor has, fastest first."""
    names, found = library().xnor_sets(), list[str]()
    while names[len(found)]:
        found.append(names[len(found)].decode())
    return found


def stale() -> bool:
    """Whether the library was built from other sources than those beside it."""
    return str(library().xnor_digest().decode()) != digest()


@dataclass(frozen=True)
class Told:
    """What `doctor` says of the kernels. sets: fastest first; stale: older than their sources."""

    here: bool
    sets: tuple[str, ...] = ()
    digest: str | None = None
    stale: bool = False
    reason: str = ""


def told() -> Told:
    """Whether the kernels are here, and which."""
    try:
        return Told(True, tuple(sets()), str(library().xnor_digest().decode()), stale())
    except MissingExtraError as e:
        return Told(False, reason=f"{e.what}: {e.hint}")


@dataclass(frozen=True)
class Threshold:
    """Bits out: dot >= least, the other way round where flip. int32, bool (filters,)."""

    least: np.ndarray
    flip: np.ndarray


class Layer:
    """A convolution of one-bit values on one instruction set.

    weights: uint64 (filters, kernel h, kernel w, words), `reference.packed`; mask: the same shape,
    bits of 1 where a ternary weight is not zero, or None; name: of `sets()`, or None: the fastest
    """

    def __init__(
        self, shape: Shape, weights: np.ndarray, mask: np.ndarray | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        self.shape, self._handle = shape, ctypes.c_void_p()
        wanted = (shape.filters, *shape.kernel, -(-(shape.channels // shape.groups) // 64))
        for words in (weights, mask):
            if words is not None and (words.shape != wanted or words.dtype != np.uint64):
                raise ValueError(f"weights are {words.dtype} {words.shape}, not uint64 {wanted}")
        made = _Shape(
            shape.height, shape.width, shape.channels, shape.filters, *shape.kernel,
            *shape.stride, *shape.dilation, *shape.pads, shape.groups,
        )  # fmt: skip
        held = np.ascontiguousarray(weights), None if mask is None else np.ascontiguousarray(mask)
        status = library().xnor_layer_new(
            ctypes.byref(made), _at(held[0]), _at(held[1]), name.encode() if name else None,
            ctypes.byref(self._handle),
        )  # fmt: skip
        if status:
            raise EngineError(f"binary layer {shape}", ERRORS[status])
        room = np.empty(library().xnor_scratch(self._handle) + ALIGNMENT, np.uint8)
        self._scratch = room[-room.ctypes.data % ALIGNMENT :]

    def __del__(self) -> None:
        if self._handle:
            library().xnor_layer_free(self._handle)

    def dots(self, x: np.ndarray) -> np.ndarray:
        """x: uint64 (height, width, words); int32 (out height, out width, filters)."""
        out = np.empty((*self.shape.out, self.shape.filters), np.int32)
        return self._run(x, out, raw=_at(out))

    def real(
        self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, add: np.ndarray | None = None
    ) -> np.ndarray:
        """scale · dot + bias (+ add): float32 (filters, out height, out width)."""
        out = np.empty((self.shape.filters, *self.shape.out), np.float32)
        kept = [np.ascontiguousarray(v, np.float32) for v in (scale, bias)]
        more = None if add is None else np.ascontiguousarray(add, np.float32)
        if any(v.shape != (self.shape.filters,) for v in kept) or (
            more is not None and more.shape != out.shape
        ):
            raise ValueError("scale, bias: one for each filter; add: as the output")
        return self._run(
            x, out, real=_at(out), scale=_at(kept[0]), bias=_at(kept[1]), add=_at(more)
        )

    def bits(self, x: np.ndarray, threshold: Threshold) -> np.ndarray:
        """uint64 (out height, out width, ceil(filters / 64))."""
        out = np.empty((*self.shape.out, -(-self.shape.filters // 64)), np.uint64)
        least = np.ascontiguousarray(threshold.least, np.int32)
        flip = np.ascontiguousarray(threshold.flip, np.uint8)
        if least.shape != (self.shape.filters,) or flip.shape != least.shape:
            raise ValueError("least, flip: one for each filter")
        return self._run(x, out, bits=_at(out), least=_at(least), flip=_at(flip))

    def _run(self, x: np.ndarray, out: np.ndarray, **fields: int | None) -> np.ndarray:
        wanted = (self.shape.height, self.shape.width, -(-self.shape.channels // 64))
        if x.shape != wanted or x.dtype != np.uint64:
            raise ValueError(f"x is {x.dtype} {x.shape}, not uint64 {wanted}")
        x = np.ascontiguousarray(x)
        made = _Output(**fields)
        library().xnor_run(self._handle, _at(x), ctypes.byref(made), _at(self._scratch))
        return out


def _at(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data
