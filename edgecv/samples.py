"""What a network is fed when it is compared, calibrated and proved: pixels of its image, arrays for
its other inputs.

An image goes through the one preprocessing; another input takes real values as the graph's own
file does, channels first. Where nobody gave any and the images are made up, they are drawn, the
same for the same input and sample in every form.

A network of batch B takes B samples in a call. What it answers has a row for each of them, where
its first axis is B, and else belongs to the call.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import (
    TensorSpec,
    batch_of,
    channels_last,
    image_of,
    on_grid,
    plain,
    quantise,
)

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """N samples.

    pixels:  uint8 (N, H, W, C), as `Preprocess.normalise` takes them
    arrays:  by an input's name, real values (N, ...), without the input's batch axis, channels
             first; they go before pixels
    numbers: int64 (N,), of each sample in the whole set
    made_up: what has no values is drawn
    blank:   the pixels stand for nothing: the image is among the arrays, or nowhere
    """

    pixels: np.ndarray
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    made_up: bool = False
    blank: bool = False

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.pixels):
            object.__setattr__(self, "numbers", np.arange(len(self.pixels)))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> Samples:
        """Those samples: index is a slice or an array."""
        arrays = {name: values[index] for name, values in self.arrays.items()}
        return replace(self, pixels=self.pixels[index], arrays=arrays, numbers=self.numbers[index])

    def digest(self) -> str:
        """SHA-256 (hex) of the values."""
        found = hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes())
        for name, values in sorted(self.arrays.items()):
            found.update(name.encode() + np.ascontiguousarray(values).tobytes())
        if self.made_up:
            found.update(self.numbers.tobytes())
        return found.hexdigest()


Given = np.ndarray | Samples  # pixels alone, or all of it
Some = TypeVar("Some", np.ndarray, Samples, Given)


def samples_of(given: Given) -> Samples:
    """Pixels alone as samples."""
    return given if isinstance(given, Samples) else Samples(given)


class Feeds(Sequence[Feed]):
    """One feed a call, by the inputs' names, made when asked for.

    specs: the inputs of the graph or the engine; an integer grid is quantised onto
    Raises DataError: an input without values.
    """

    def __init__(
        self, given: Given, specs: Sequence[TensorSpec], preprocess: Preprocess, first: bool = False
    ) -> None:
        """first: channels first and float, whatever the tensors' own layout (`Feeds.plain`)"""
        self._samples, self._specs, self._preprocess = samples_of(given), specs, preprocess
        self._image, self._batch = image_of(specs), batch_of(specs)
        self._first = first
        self._check()

    def _check(self) -> None:
        """Raises DataError: arrays that are none of an input's, or of another shape."""
        arrays, image = self._samples.arrays, self._image
        if image and self._samples.blank and image.name not in arrays:
            others = ", ".join(repr(name) for name in arrays)
            hint = f"name an array {image.name!r}; the file has {others}"
            raise DataError(f"input {image.name!r}", "has no values", hint)
        for spec in self._specs:
            row, values = self._row(plain(spec)), arrays.get(spec.name)
            if values is not None and values.shape[1:] not in (row, (1, *row)):
                seen, wanted = ("x".join(map(str, s)) or "1" for s in (values.shape[1:], row))
                raise DataError(
                    f"array {spec.name!r}",
                    f"its {len(values)} samples are {seen}, the network's input is {wanted}",
                    "a row a sample in the network's own shape, channels first; images of any "
                    "size are uint8, channels last",
                )

    def first(self) -> Feeds:
        """The same in real numbers, channels first."""
        return Feeds(self._samples, self._specs, self._preprocess, first=True)

    @property
    def samples(self) -> Samples:
        """What is fed."""
        return self._samples

    def __len__(self) -> int:
        return -(-len(self._samples) // self._batch)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> Feeds: ...
    def __getitem__(self, index: int | slice | np.ndarray) -> Feed | Feeds:
        if isinstance(index, (int, np.integer)):
            return self._feed(range(len(self))[int(index)])
        calls = np.arange(len(self))[index]
        rows = (calls[:, None] * self._batch + np.arange(self._batch)).ravel()
        some = self._samples[rows % len(self._samples)]
        return Feeds(some, self._specs, self._preprocess, self._first)

    def __iter__(self) -> Iterator[Feed]:
        return map(self._feed, range(len(self)))

    def _feed(self, call: int) -> Feed:
        rows = (call * self._batch + np.arange(self._batch)) % len(self._samples)
        return {spec.name: self._values(spec, rows) for spec in self._specs}

    def _values(self, spec: TensorSpec, rows: np.ndarray) -> np.ndarray:
        if self._first:
            spec = plain(spec)
        known = self._samples.arrays.get(spec.name)
        if known is None and self._image is not None and spec.name == self._image.name:
            return adapted(self._preprocess, spec).normalise(self._samples.pixels[rows])
        if known is None and not self._samples.made_up:
            shape = ", ".join(map(str, spec.shape))
            raise DataError(
                f"input {spec.name!r}",
                f"({shape}) has no values: images are for one input",
                f"give an .npz file with an array for each input, a row a sample: {spec.name!r} "
                "and the others",
            )
        row = self._row(plain(spec))
        if known is None:
            values = [_drawn(spec, row, int(self._samples.numbers[i])) for i in rows]
        else:
            values = [known[i].reshape(row) for i in rows]
        real = np.stack(values) if self._batched(spec) else values[0]
        real = channels_last(real, spec)
        return quantise(real, spec) if on_grid(spec) else real.astype(spec.dtype)

    def _row(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of one sample of it."""
        return spec.shape[1:] if self._batched(spec) else spec.shape

    def _batched(self, spec: TensorSpec) -> bool:
        return bool(spec.shape) and spec.shape[0] == self._batch


# What ranges and moments are measured on: float32 (N, C, H, W) of a network of one image, or feeds.
CalibrationData = np.ndarray | Feeds


def calibration_data(given: Given, specs: Sequence[TensorSpec], preprocess: Preprocess) -> Any:
    """Real values for a float graph with these inputs, in its own layout (`CalibrationData`)."""
    only = specs[0] if len(specs) == 1 else None
    if only is None or image_of(specs) is None or batch_of(specs) > 1 or samples_of(given).arrays:
        return Feeds(given, specs, preprocess)
    return adapted(preprocess, only).normalise(samples_of(given).pixels)


def adapted(preprocess: Preprocess, spec: TensorSpec) -> Preprocess:
    """The same preprocessing, ending in the dtype, layout and grid of an engine's input."""
    return replace(
        preprocess,
        layout=spec.layout,
        dtype=spec.dtype,
        scale=spec.scale,
        zero_point=spec.zero_point,
    )


def _drawn(spec: TensorSpec, shape: tuple[int, ...], number: int) -> np.ndarray:
    """Values for an input of which nothing is known: normal, or whole numbers of 0 and 1."""
    rng = np.random.default_rng([zlib.crc32(spec.name.encode()), number])
    whole = np.dtype(spec.dtype).kind in "iub" and not on_grid(spec)
    return rng.integers(0, 2, shape) if whole else rng.normal(size=shape)


def named(x: Any, names: Sequence[str]) -> Feed:
    """A feed as it is; one array as the first input's."""
    return dict(x) if isinstance(x, Mapping) else {names[0]: x}
