"""mIoU, and whether two networks differ in it on the same images.

    IoU(class) = pixels that are it and are called it / pixels that are it or are called it
    mIoU = mean of it over the classes that are there or are called so

over the pixels of all images together (Everingham et al., The Pascal Visual Object Classes
Challenge, IJCV 111, 2015). Pixels that are IGNORED in the truth count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edgecv.data.annotations import IGNORED, Maps
from edgecv.errors import DataError
from edgecv.tasks import paired
from edgecv.tasks.base import Difference, Parts, Score


def told_by(reads: Sequence[Any]) -> Maps | None:
    """The maps that were read, as what is true; None where no pixel is of any class."""
    truth = Maps.of([read.map for read in reads])
    return truth if (truth.flat != IGNORED).any() else None


def score(reads: Iterable[Any], truth: Maps, classes: Sequence[str]) -> Score:
    """mIoU, IoU of each class, and beside it the share of pixels that are right.

    reads: of each image, with map uint8 (H, W) of its size
    A class that is neither there nor called so anywhere is None.
    Raises DataError: a map of another size, not as many maps as images, a class of the truth that
    has no name, or no pixel that counts.
    """
    rows = [  # one map at a time: those of a thousand photographs are gigabytes
        _counts(np.asarray(read.map), true, i, len(classes))
        for i, (read, true) in enumerate(zip(reads, _each(truth), strict=False))
    ]
    if len(rows) != len(truth):
        raise DataError("segmentation", f"{len(rows)} answers for {len(truth)} images")
    counts = np.array(rows)
    parts = dict(zip(("right", "said", "there"), counts.transpose(1, 0, 2), strict=True))
    right, said, there = counts.sum(0, dtype=np.int64)
    if not there.any():
        raise DataError("segmentation", "no pixel has a class: there is nothing to be judged by")
    either = said + there - right
    per_class = {
        name: float(right[k] / either[k]) if either[k] else None for k, name in enumerate(classes)
    }
    value = float(value_of(parts, np.ones((len(rows), 1)))[0])
    more = {"pixel_accuracy": float(right.sum() / there.sum())}
    return Score(value, len(rows), per_class, more, parts)


def _each(truth: Maps) -> Iterator[np.ndarray]:
    return (truth[i] for i in range(len(truth)))


def _counts(said: np.ndarray, true: np.ndarray, image: int, classes: int) -> np.ndarray:
    """uint32 (3, C): pixels of each class that are right, that are called it, that are it."""
    if said.shape != true.shape:
        sizes = [f"{h}x{w}" for h, w in (said.shape, true.shape)]
        raise DataError(f"segmentation, image {image}", f"the map is {sizes[0]}, not {sizes[1]}")
    counted = true != IGNORED
    said, true = said[counted], true[counted]
    of_said, of_true, right = (
        np.bincount(v, minlength=256) for v in (said, true, true[said == true])
    )
    if of_true[classes:].any():
        last = int(np.flatnonzero(of_true)[-1])
        raise DataError(f"segmentation, image {image}", f"class {last} of {classes} has no name")
    return np.array([v[:classes] for v in (right, of_said, of_true)], np.uint32)


def difference(before: Parts, after: Parts, alpha: float) -> Difference:
    """The drop of mIoU, by the paired bootstrap over images. Raises ValueError: other images."""
    if not np.array_equal(before["there"], after["there"]):
        raise ValueError("measured on different test images")
    return paired.difference(value_of, before, after, len(before["there"]), alpha)


def value_of(parts: Parts, weights: np.ndarray) -> np.ndarray:
    """mIoU of the images taken so many times each, float64 (R,).

    weights: (N, R), how often each image counts in each of R draws
    """
    weights = np.asarray(weights, np.float64)
    right, said, there = (parts[k].T.astype(np.float64) @ weights for k in
                          ("right", "said", "there"))  # fmt: skip
    either = said + there - right
    known = (either > 0).sum(0)
    return (right / np.maximum(either, 1.0)).sum(0) / np.maximum(known, 1)
