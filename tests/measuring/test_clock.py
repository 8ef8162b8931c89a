"""The clock: what it measures, and that its budget holds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from edgecv.benchmark.sampling import SITTING_ROUNDS
from edgecv.measuring.clock import Clock, Rounds, Trial


class Sleeper(Trial):
    """A trial that takes a known time."""

    def __init__(self, ms: float) -> None:
        super().__init__(f"{ms}", "none", {}, {})
        self.ms = ms

    def open(self) -> Callable[[], None]:
        return lambda: time.sleep(self.ms / 1e3)


def test_a_saving_is_the_difference() -> None:
    found = Clock(20.0).saving(Sleeper(4.0), Sleeper(2.0), share=0.05)
    assert found is not None
    assert found.ms > 0
    assert found.low <= found.ms <= found.high
    assert found.shipped_ms - found.mended_ms == pytest.approx(found.ms)


def test_the_budget_is_an_end() -> None:
    clock = Clock(0.3)
    assert clock.rounds([Sleeper(1.0), Sleeper(1.0)]) is not None
    time.sleep(max(0.0, clock.left_s))
    assert clock.rounds([Sleeper(1.0)]) is None
    assert clock.saving(Sleeper(1.0), Sleeper(1.0)) is None


def test_equal_columns_save_nothing() -> None:
    column = np.full(8, 2.0)
    rounds = Rounds(np.stack([column, column], 1), np.arange(8) // SITTING_ROUNDS)
    found = rounds.saving(column, column)
    assert found.ms == 0.0
    assert found.low <= 0.0 <= found.high
