"""Calibration images that cannot be right: refused where nothing could come of them, else said.

What a network expects has a spread of about one: pixels in 0..1, in -1..1, or of standard deviation
1. Normalised twice, it all but vanishes ((x − 127) / 128 of what was in -1..1 already) or grows
tenfold ((x − 0.485) / 0.229 again), and ranges chosen from it fit no image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.spec import TensorSpec
from edgecv.samples import CalibrationData, Feeds

FEW = 32
VANISHED = 0.05  # standard deviation
GROWN = (2.5, 20.0)  # standard deviation; pixels in 0..255 have some 60
BELOW = -5.0  # once normalised, nothing is so dark
_WHERE = "quantize: calibration images"


def check_samples(samples: CalibrationData, specs: Sequence[TensorSpec]) -> None:
    """Raises DataError: none, another dtype or shape than the inputs', NaN, all the same, blank."""
    if len(samples) == 0:
        raise DataError(_WHERE, "there are none", "calibrate on 100 images or so")
    if isinstance(samples, Feeds):
        _check_feeds(samples)
        return
    samples, shape = np.asanyarray(samples), specs[0].shape[1:]
    if samples.dtype != np.float32 or samples.shape[1:] != tuple(shape):
        seen = f"{samples.dtype} {samples.shape[1:]}"
        raise DataError(_WHERE, f"each is {seen}, the network takes float32 {tuple(shape)}")
    for i, image in enumerate(samples):
        if not np.isfinite(image).all():
            raise DataError(_WHERE, f"number {i} holds NaN or infinite values")
    if all(np.ptp(image) == 0 for image in samples):
        raise DataError(_WHERE, "every image is of one colour", "calibrate on real images")
    if len(samples) > 1 and all(np.array_equal(image, samples[0]) for image in samples[1:]):
        raise DataError(_WHERE, f"all {len(samples)} are the same", "calibrate on 100 images or so")


def _check_feeds(feeds: Feeds) -> None:
    first, same = feeds[0], True
    for i, feed in enumerate(feeds):
        for name, values in feed.items():
            if not np.isfinite(values).all():
                raise DataError(f"{_WHERE}: input {name!r}", f"number {i} holds NaN or infinity")
        same = same and all(np.array_equal(v, first[n]) for n, v in feed.items())
    if same and len(feeds) > 1:
        raise DataError(_WHERE, f"all {len(feeds)} are the same", "calibrate on 100 samples or so")


def doubts(samples: CalibrationData) -> list[str]:
    """What is odd about checked samples, a sentence each, with the numbers."""
    found = []
    if len(samples) < FEW:
        found.append(
            f"{len(samples)} calibration images are few: ranges and rounding follow just these; "
            "100 or more are better"
        )
    if isinstance(samples, Feeds):
        return found
    low, high = float(samples.min()), float(samples.max())
    mean, std = float(samples.mean(dtype=np.float64)), float(samples.std(dtype=np.float64))
    if std < VANISHED or (GROWN[0] < std < GROWN[1] and low < BELOW):
        found.append(
            f"calibration images hold {low:.3g} to {high:.3g}, mean {mean:.3g}, standard deviation "
            f"{std:.3g}: were they normalised twice? check mean and std"
        )
    return found
