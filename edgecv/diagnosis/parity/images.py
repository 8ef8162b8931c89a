"""The images that a ladder is climbed with, decoded and normalised one at a time.

run's test data      decoded, resized and cropped already; with labels
--images DIR         files of any size; sub-folders called as the bundle's labels are classes
golden inputs        what a bundle carries, turned back into pixels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from edgecv.data.decode import decode
from edgecv.data.files import image_files
from edgecv.data.images import Images, OutputNames
from edgecv.diagnosis.parity.layers import Sample
from edgecv.errors import DataError
from edgecv.runtime.archive import Contents
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import batch_of, channels_first, dequantise, on_grid
from edgecv.samples import Feed

_BLANK = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class Samples:
    """image(i): uint8 (H, W, C); labels: int64 or None; ready: of the network's size already.

    feeds: of a network that takes more than an image, what it takes: real numbers by the input's
    name, channels first; images are then not looked at
    """

    count: int
    image: Callable[[int], np.ndarray]
    labels: np.ndarray | None
    ready: bool
    where: str
    feeds: tuple[Feed, ...] | None = None

    def spread(self, count: int) -> Samples:
        """At most `count` of them, evenly spread."""
        keep = np.unique(np.linspace(0, self.count - 1, min(count, self.count)).astype(int))
        labels = None if self.labels is None else self.labels[keep]
        return replace(
            self,
            count=len(keep),
            image=lambda i: self.image(int(keep[i])),
            labels=labels,
            feeds=self.feeds and tuple(self.feeds[i] for i in keep),
        )

    def pixels(self, index: int, preprocess: Preprocess) -> np.ndarray:
        """uint8 (height, width, channels) of the network's size."""
        image = self.image(index)
        return np.ascontiguousarray(image if self.ready else preprocess.geometry(image))


class Inputs(Sequence[Sample]):
    """float32 (1, C, H, W), or a feed, for each sample, made when asked for."""

    def __init__(self, samples: Samples, preprocess: Preprocess, keep: range | None = None) -> None:
        self._samples = samples
        self._real = replace(
            preprocess, layout="NCHW", dtype="float32", scale=None, zero_point=None
        )
        self._keep = keep if keep is not None else range(samples.count)

    def __len__(self) -> int:
        return len(self._keep)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Inputs: ...
    def __getitem__(self, index: int | slice) -> Sample | Inputs:
        if isinstance(index, slice):
            return Inputs(self._samples, self._real, self._keep[index])
        if self._samples.feeds is not None:
            return self._samples.feeds[self._keep[index]]
        return self._real.normalise(self._samples.pixels(self._keep[index], self._real))


def of_run(folder: Path) -> Samples:
    """The decoded images of a run's data node; boxes and maps are no labels. Raises DataError."""
    found = Images.load(folder)
    labels = found.labels if found.classes and found.truth is None else None
    return Samples(len(found), lambda i: np.asarray(found.pixels[i]), labels, True, "test data")


def of_folder(folder: Path, labels: Sequence[str] | None, channels: int = 3) -> Samples:
    """Image files below a folder, for a network of so many channels. Raises DataError: no folder,
    no image."""
    if not folder.is_dir():
        raise DataError(str(folder), "is no folder", "--images takes a folder of images")
    files = image_files(folder)
    if not files:
        raise DataError(str(folder), "holds no images", "give JPEG or PNG files")
    names = [p.relative_to(folder).parts[0] for p in files]
    known = OutputNames(labels or ())
    found = [known.get(n) for n in names]
    truth = np.array([-1 if i is None else i for i in found], np.int64)
    return Samples(
        len(files),
        lambda i: decode(files[i], None if channels in (1, 3) else channels),
        truth if (truth >= 0).all() else None,
        False,
        str(folder),
    )


def of_goldens(contents: Contents) -> Samples:
    """What a bundle carries for `edgecv verify`, as pixels. Raises DataError: it carries none."""
    if not contents.golden_inputs:
        hint = "give --images"
        raise DataError(str(contents.path), "carries no golden inputs to compare with", hint)
    name = contents.image
    if name is None or len(contents.inputs) > 1 or batch_of(contents.inputs) > 1:
        count = len(next(iter(contents.golden_inputs.values())))
        feeds = tuple(_real(contents, i) for i in range(count))
        return Samples(count, lambda _: _BLANK, None, True, "golden inputs", feeds)
    spec = next(s for s in contents.inputs if s.name == name)
    held = contents.golden_inputs[name]
    real = dequantise(held, spec) if on_grid(spec) else held.astype(np.float32)
    nhwc = real if contents.preprocess.layout == "NHWC" else real.transpose(0, 2, 3, 1)
    pre = contents.preprocess
    pixels = nhwc * np.asarray(pre.std, np.float32) + np.asarray(pre.mean, np.float32)
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if pre.color == "bgr":  # normalising turns it about
        pixels = pixels[..., ::-1]
    return Samples(len(pixels), lambda i: pixels[i], None, True, "golden inputs")


def _real(contents: Contents, call: int) -> Feed:
    """What one call takes, in real numbers, channels first."""
    feed = contents.golden_feed(call)
    held = ((s, feed[s.name]) for s in contents.inputs)
    return {s.name: channels_first(dequantise(v, s) if on_grid(s) else v, s) for s, v in held}


__all__ = ["Inputs", "Samples", "of_folder", "of_goldens", "of_run"]
