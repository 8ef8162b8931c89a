"""The bootstrap of a metric over images, beside formulas that hold for a mean."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from edgecv.tasks import paired
from edgecv.tasks.base import Parts


def mean(parts: Parts, times: np.ndarray) -> np.ndarray:
    return np.asarray(parts["right"] @ times / times.sum(0))


@pytest.mark.parametrize(("images", "right"), [(200, 140), (1000, 300)])
def test_an_interval_is_as_wide_as_a_binomial_says(images: int, right: int) -> None:
    parts = {"right": np.arange(images) < right}
    low, high = paired.interval(mean, parts, images, 0.025)
    share = right / images
    half = NormalDist().inv_cdf(0.975) * (share * (1 - share) / images) ** 0.5
    assert (low + high) / 2 == pytest.approx(share)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_an_interval_ends_where_a_metric_does() -> None:
    parts = {"right": np.arange(20) < 19}
    assert paired.interval(mean, parts, 20, 0.025)[1] == 1.0
    assert paired.interval(mean, {"right": np.ones(20)}, 20, 0.025) == (1.0, 1.0)
