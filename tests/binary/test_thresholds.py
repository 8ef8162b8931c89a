"""A threshold of integers says for every dot what the floats say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.binary.thresholds import thresholds

numbers = st.floats(-50, 50, width=32)
scales = st.one_of(numbers, st.sampled_from([0.0, -0.0, 1e-20, 3.0, -1.0, 0.1]))


@settings(max_examples=300, deadline=None)
@given(scales, numbers, numbers, st.integers(1, 300), st.booleans())
def test_every_dot_is_judged_as_the_floats_judge_it(
    scale: float, bias: float, least: float, most: int, relu: bool
) -> None:
    s, t, b = (np.array([v], np.float32) for v in (scale, bias, least))
    first, flip = thresholds(s, t, b, most, relu)
    for dot in range(-most, most + 1):
        value = s * np.float32(dot) + t
        value = np.maximum(value, 0) if relu else value
        assert bool(value[0] >= b[0]) == ((dot >= first[0]) != flip[0]), dot


def test_a_scale_of_zero_is_a_constant() -> None:
    zero, one = np.zeros(2, np.float32), np.array([1, -1], np.float32)
    first, flip = thresholds(zero, one, zero, 9)
    assert [(a <= 0) != f for a, f in zip(first, flip, strict=True)] == [True, False]


def test_rounding_is_part_of_the_question() -> None:
    """(β − t) / s is 3.0000001 here, and yet 3 passes in float32."""
    s, t = np.float32(0.1), np.float32(0.7)
    b = np.float32(s * np.float32(3) + t)
    first, _ = thresholds(np.array([s]), np.array([t]), np.array([b]), 10)
    assert first[0] == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_or_always_holds(value: float) -> None:
    one = np.ones(1, np.float32)
    first, flip = thresholds(one, np.array([value], np.float32), one, 5)
    for dot in (-5, 0, 5):
        assert ((dot >= first[0]) != flip[0]) == (value == np.inf)
