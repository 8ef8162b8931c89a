"""Cores that a step uses for itself: the same results, in the same order, with any count."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import numpy as np
import pytest

from edgecv.cores import ahead, beside, free, shares

NAMED = ContextVar("test_cores_named", default="nobody")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order(count: int) -> None:
    with free(count):
        assert list(ahead(lambda x: x * x, range(20))) == [x * x for x in range(20)]


def test_one_core_makes_each_when_it_is_asked_for() -> None:
    made: list[int] = []
    found = ahead(made.append, range(5))
    next(found)
    assert made == [0]


def test_two_cores_work_at_once_and_hold_few() -> None:
    both, made = threading.Barrier(2, timeout=20), list[int]()

    def make(x: int) -> int:
        both.wait()  # alone, it would wait for ever
        made.append(x)
        return x

    with free(2):
        found = ahead(make, range(8))
        assert next(found) == 0
        assert len(made) <= 3
        assert list(found) == list(range(1, 8))


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_comes_in_its_turn(count: int) -> None:
    def make(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    with free(count):
        found = ahead(make, range(9))
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(found)


def test_threads_know_what_this_one_does_and_have_one_core() -> None:
    def look(_: int) -> tuple[str, int]:
        return NAMED.get(), len(shares(8))

    token = NAMED.set("somebody")
    try:
        with free(2):
            assert set(ahead(look, range(4))) == {("somebody", 1)}
            assert beside(lambda: look(0))() == ("somebody", 1)
            assert len(shares(8)) == 2
    finally:
        NAMED.reset(token)
    assert len(shares(8)) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_made_beside_raises_where_it_is_asked_for(count: int) -> None:
    def fail() -> int:
        raise ValueError("beside")

    with free(count):
        answer = beside(fail)
        with pytest.raises(ValueError, match="beside"):
            answer()


@pytest.mark.parametrize(("count", "things"), [(1, 5), (2, 5), (3, 2), (2, 1), (2, 0)])
def test_shares_are_all_of_it_in_order(count: int, things: int) -> None:
    row = np.arange(things)
    with free(count):
        pieces = [row[piece] for piece in shares(things)]
    np.testing.assert_array_equal(np.concatenate(pieces), row)
    assert len(pieces) == max(1, min(count, things))
