"""Widths by importance lost for what they win, and the point that was measured as asked."""

from __future__ import annotations

import itertools
import math

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgecv.methods.pruning.fit import TOLERANCE, fit  # noqa: E402
from edgecv.methods.pruning.frontier import Frontier, losses, options  # noqa: E402

Scores = st.lists(st.floats(0.0, 10.0), min_size=8, max_size=24)


def linear(widths: tuple[int, ...]) -> float:
    return float(sum(widths))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(Scores)
def test_what_is_lost_grows_as_less_is_kept(values: list[float]) -> None:
    lost = losses(torch.tensor(values))
    assert len(lost) == len(values) + 1
    assert math.isinf(float(lost[0]))
    assert float(lost[-1]) == pytest.approx(0.0, abs=1e-9)
    assert bool((lost[1:-1] >= lost[2:] - 1e-9).all())


def test_a_few_removed_channels_lose_their_scores() -> None:
    lost = losses(torch.tensor([1.0] * 99 + [0.5]))
    assert float(lost[99]) == pytest.approx(0.5, rel=0.01)
    assert float(lost[98]) == pytest.approx(1.5, rel=0.01)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(Scores, min_size=1, max_size=4), st.sampled_from([1, 4, 8, 16]))
def test_a_path_narrows_and_stays_on_the_grid(groups: list[list[float]], align: int) -> None:
    scores = [torch.tensor(g) for g in groups]
    full = tuple(map(len, scores))
    path = Frontier(scores, options(full, align), linear).path()
    assert path[0].widths == full
    for before, after in itertools.pairwise(path):
        assert after.cost < before.cost
        assert all(a <= b for a, b in zip(after.widths, before.widths, strict=True))
        for width, most in zip(after.widths, full, strict=True):
            assert width == most or (width % align == 0 and width >= align)


def test_a_layer_that_wins_no_time_is_left_alone() -> None:
    scores = [torch.zeros(32), torch.ones(32)]  # the first costs nothing to lose, and wins nothing
    path = Frontier(scores, options((32, 32), 8), lambda w: float(w[1]) + 10).path()
    assert len(path) > 1
    assert all(point.widths[0] == 32 for point in path)


def test_what_matters_less_goes_first_and_plateaus_are_jumped() -> None:
    scores = [torch.full((32,), 1.0), torch.full((32,), 0.01)]

    def cost(widths: tuple[int, ...]) -> float:  # 24 takes as long as 32
        return sum(16.0 if w <= 16 else 32.0 for w in widths)

    path = Frontier(scores, options((32, 32), 8), cost).path()
    assert path[1].widths == (32, 16)
    assert path[2].widths == (16, 16)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(st.floats(0.25, 0.9), st.floats(0.3, 1.6))
def test_the_measure_is_what_was_asked_for(wanted: float, bend: float) -> None:
    """The engine's time is not the sum of layers; a fine grid can be hit all the same."""
    scores = [torch.rand(64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    edge = Frontier(scores, options((64, 64, 64), 1), linear)
    measured: list[tuple[int, ...]] = []

    def measure(widths: tuple[int, ...]) -> float:
        measured.append(widths)
        return (sum(widths) / 192) ** bend

    found = fit(edge, wanted, measure)
    assert len(measured) == len(set(measured)) <= 9
    least = (6 / 192) ** bend
    if least < 0.7 * wanted:
        assert found.attainable
        assert abs(found.measured / wanted - 1) <= TOLERANCE + 0.02
    assert found.measured == pytest.approx((sum(found.point.widths) / 192) ** bend)
    assert sum(t["chosen"] for t in found.to_json()) == 1


def test_what_cannot_be_reached_ends_at_the_smallest() -> None:
    edge = Frontier([torch.ones(32)], options((32,), 16), linear)
    found = fit(edge, 0.1, lambda w: 0.5 + w[0] / 64)
    assert not found.attainable
    assert found.point.widths == (16,)
    assert found.measured == 0.75


def test_where_nothing_can_be_narrowed_nothing_is_reached() -> None:
    edge = Frontier([torch.ones(16)], options((16,), 16), linear)
    found = fit(edge, 0.5, lambda _: 1.0)
    assert not found.attainable
    assert found.point.widths == (16,)
