"""Aligned neighbours of a width, and what lies between them, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.diagnosis.why.alignment import neighbours, wasted
from edgecv.measuring.clock import Rounds
from edgecv.measuring.product import Product


def conv(source: int, target: int, **options) -> Product:
    return Product("a", "conv", (source, target), **options)


def test_neighbours_by_hand() -> None:
    assert neighbours(conv(20, 40), 16) == ((16, 32), (32, 48))
    assert neighbours(conv(32, 40), 16) == ((32, 32), (32, 48))
    assert neighbours(conv(8, 20), 16) == (None, (16, 32)), "nothing below 16"
    assert neighbours(conv(16, 32), 16) is None
    assert neighbours(conv(3, 32, fixed=(True, False)), 16) is None, "an image has its channels"
    assert neighbours(conv(3, 20, fixed=(True, False)), 16) == ((3, 16), (3, 32))
    assert neighbours(conv(32, 10, fixed=(False, True)), 16) is None, "classes are as many as are"


def test_of_grouped_layers_only_depthwise_ones() -> None:
    assert neighbours(conv(20, 20, groups=20), 16) == ((16, 16), (32, 32))
    assert neighbours(conv(20, 20, groups=4), 16) is None


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 4, 8, 16, 32]))
def test_neighbours_are_aligned_and_around(source: int, target: int, align: int) -> None:
    found = neighbours(conv(source, target), align)
    if found is None:
        assert source % align == target % align == 0
        return
    lo, hi = found
    for i, width in enumerate((source, target)):
        assert hi[i] % align == 0
        assert width <= hi[i] < width + align
        if lo:
            assert lo[i] % align == 0
            assert width - align < lo[i] <= width


def rounds(*times: float) -> Rounds:
    """16 rounds in which each twin takes what is said, with a little noise that all share."""
    noise = np.random.default_rng(0).normal(1.0, 0.01, (16, 1))
    return Rounds(np.array([times]) * noise, np.arange(16) // 4)


def test_a_width_that_takes_what_the_next_one_takes_wastes_its_padding() -> None:
    macs = [20 * 20, 32 * 32, 16 * 16]  # own, above, below
    found = wasted(rounds(4.0, 4.0, 1.0), macs)
    fair = 1.0 + (400 - 256) / (1024 - 256) * 3.0
    assert found.share == pytest.approx(1.0 - fair / 4.0)
    assert 0.0 < found.low <= found.share


def test_a_width_on_the_line_wastes_nothing() -> None:
    found = wasted(rounds(1.5625, 4.0, 1.0), [400, 1024, 256])
    assert found.share == pytest.approx(0.0, abs=1e-6)
    assert found.low < 0.0


def test_with_nothing_below_only_a_wider_layer_that_is_quicker_counts() -> None:
    assert wasted(rounds(1.0, 1.5), [64, 256]).share < 0.0
    assert wasted(rounds(1.5, 1.0), [64, 256]).share == pytest.approx(1 / 3)
