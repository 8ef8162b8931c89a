"""Which images calibrate and which check, and integers turned back into real numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.bundling.inference import (
    JUDGED,
    calibration_sample,
    held_back,
    judged,
    real,
    sample,
    seen,
)
from edgecv.runtime.spec import TensorSpec

counts = st.integers(1, 500)


@given(total=counts, used=counts, count=counts)
def test_what_checks_was_not_calibrated_on(total, used, count):
    pixels = np.arange(total)
    calibrating, checking = calibration_sample(pixels, used), held_back(pixels, used, count)
    assert len(checking) <= count
    assert len(calibrating) <= used
    if total >= 40 or len(calibrating) < total:
        assert not set(calibrating) & set(checking)
        assert len(checking)


@given(total=counts, count=counts)
def test_a_sample_is_spread_over_the_whole_set(total, count):
    chosen = sample(np.arange(total), count)
    assert len(chosen) == min(total, count)
    assert chosen[0] == 0
    assert count == 1 or chosen[-1] == total - 1


@given(total=counts)
def test_all_images_are_judged_on_up_to_128(total):
    assert len(judged(np.arange(total))) == min(total, JUDGED)


@given(total=counts, used=counts)
def test_those_that_calibrate_are_not_judged_on_where_there_are_enough(total, used):
    pixels = np.arange(total)
    both = set(judged(pixels)) & set(calibration_sample(pixels, used))
    assert bool(both) == seen(pixels, used)


def test_a_small_set_gives_all_but_a_tenth_to_calibration():
    assert len(calibration_sample(np.arange(160), 256)) == 144
    assert len(held_back(np.arange(160), 256, 256)) == 16
    assert len(calibration_sample(np.arange(39), 256)) == 39


@pytest.mark.parametrize(("q", "expected"), [(-128, -6.0), (0, 0.4), (127, 6.75)])
def test_integers_become_real_numbers(q, expected):
    spec = TensorSpec("logits", "int8", (1, 1), scale=0.05, zero_point=-8)
    assert real(np.array([[q]], np.int8), spec)[0, 0] == pytest.approx(expected)
    assert real(np.array([[0.5]], np.float32), TensorSpec("x", "float32", (1, 1)))[0, 0] == 0.5
