"""What may be said of paired times and paired answers: by hand, by property, by simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.benchmark import statistics
from edgecv.benchmark.statistics import (
    LEAST_SITTINGS,
    RESAMPLES,
    Interval,
    bootstrap_medians,
    drop_p,
    images_to_settle,
    interval,
    mcnemar,
    normal_interval,
    paired_drop,
    standard_error,
)

SITTINGS = np.repeat(np.arange(8), 3)  # of 24 rounds

# Thousandths, so that adding a constant to them loses no digit that counts.
rounds = st.lists(st.integers(-500, 500), min_size=24, max_size=24).map(
    lambda values: np.array(values) / 1000.0
)
levels = st.floats(0.9, 0.999)


def close(a: Interval, b: Interval, times: float = 1.0) -> None:
    for name in ("ratio", "low", "high"):
        assert getattr(a, name) == pytest.approx(times * getattr(b, name), rel=1e-9), name


# intervals of a ratio


@pytest.mark.parametrize("log", [0.0, math.log(2.0), -3.0])
def test_rounds_that_are_all_alike_leave_no_doubt(log: float) -> None:
    found = interval(np.full(10, log))
    assert found.ratio == found.low == found.high == math.exp(log)
    assert found.half_width == 0.0
    assert standard_error(np.full(10, log)) == pytest.approx(0.0, abs=1e-12)


def test_one_round_says_nothing() -> None:
    found = interval(np.array([0.1]))
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.low == 0.0
    assert 1e300 < found.high < math.inf, "JSON knows no infinity"
    assert standard_error(np.array([0.1])) == math.inf


def test_one_round_can_be_widened_and_has_a_width() -> None:
    found = interval(np.array([0.1]))
    assert found.half_width > 1e6
    assert found.widened(0.01).low == 0.0


def test_the_ratio_is_the_median_and_heeds_no_outlier() -> None:
    logs = np.log([2.0] * 20 + [100.0, 1e6])
    assert interval(logs).ratio == pytest.approx(2.0)
    assert interval(logs).high == pytest.approx(2.0)


def test_what_is_written_to_json() -> None:
    found = Interval(1.0, 0.8, 1.25, 0.9)
    assert found.to_json() == [0.8, 1.25]
    assert found.half_width == pytest.approx(0.25)


@settings(deadline=None, max_examples=60)
@given(rounds, levels)
def test_an_interval_holds_its_ratio(logs: np.ndarray, level: float) -> None:
    for sittings in (None, SITTINGS):
        found = interval(logs, level, sittings)
        assert found.low <= found.ratio <= found.high
        assert found.ratio == pytest.approx(math.exp(np.median(logs)))
        assert found.level == level


@settings(deadline=None, max_examples=40)
@given(rounds, st.floats(-5, 5))
def test_a_machine_that_is_as_much_slower_scales_everything(logs: np.ndarray, by: float) -> None:
    close(interval(logs + by, sittings=SITTINGS), interval(logs, sittings=SITTINGS), math.exp(by))


@settings(deadline=None, max_examples=40)
@given(rounds, levels, levels)
def test_being_surer_takes_a_wider_interval(logs: np.ndarray, one: float, other: float) -> None:
    narrow, wide = (interval(logs, level, SITTINGS) for level in sorted((one, other)))
    assert wide.low <= narrow.low * (1 + 1e-12)
    assert wide.high >= narrow.high * (1 - 1e-12)


@settings(deadline=None, max_examples=40)
@given(rounds, st.randoms(use_true_random=False))
def test_the_order_of_rounds_does_not_matter(logs: np.ndarray, random: object) -> None:
    order = list(range(len(logs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert interval(logs[order], sittings=SITTINGS[order]) == interval(logs, sittings=SITTINGS)


def test_the_same_rounds_give_the_same_interval_and_the_seed_another() -> None:
    logs = np.random.default_rng(0).normal(0, 0.1, 24)
    assert interval(logs) == interval(logs.copy())
    assert interval(logs, seed=1).ratio == interval(logs).ratio
    assert interval(logs, seed=1) != interval(logs)


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.1), st.floats(0, 0.1))
def test_widening_never_narrows(
    log: float, below: float, above: float, less: float, more: float
) -> None:
    found = Interval(math.exp(log), math.exp(log - below), math.exp(log + above))
    close(found.widened(0.0), found)
    little, much = (found.widened(error) for error in sorted((less, more)))
    for wide, narrow in ((little, found), (much, little)):
        assert wide.ratio == narrow.ratio
        assert wide.low <= narrow.low * (1 + 1e-12)
        assert wide.high >= narrow.high * (1 - 1e-12)


def test_errors_add_by_their_squares() -> None:
    z = NormalDist().inv_cdf(0.975)
    found = normal_interval(0.2, 0.03).widened(0.04)
    close(found, normal_interval(0.2, 0.05))
    assert math.log(found.high / found.ratio) == pytest.approx(0.05 * z)


def test_a_normal_interval_by_hand() -> None:
    found = normal_interval(math.log(1.1), 0.01, level=0.9)
    z = 1.6448536269514722
    assert found.ratio == pytest.approx(1.1)
    assert found.low == pytest.approx(1.1 * math.exp(-0.01 * z))
    assert found.high == pytest.approx(1.1 * math.exp(0.01 * z))
    assert normal_interval(0.0, math.inf).high < math.inf


# the bootstrap


def test_one_group_drawn_is_the_median_itself() -> None:
    for n in (1, 2, 5, 6):
        logs = np.random.default_rng(n).normal(size=n)
        medians = bootstrap_medians(logs, np.zeros(n, int))
        assert medians.shape == (RESAMPLES,)
        assert set(medians) == {np.median(logs)}


def test_drawing_in_parts_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = np.random.default_rng(3).normal(0, 0.01, 500)
    groups = np.arange(500) // 4
    whole = bootstrap_medians(logs, groups, resamples=300)
    monkeypatch.setattr(statistics, "BOOTSTRAP_CELLS", 7 * 500)
    assert np.array_equal(bootstrap_medians(logs, groups, resamples=300), whole)


def test_every_draw_is_as_frequent_as_it_should_be() -> None:
    """Three groups can be drawn in 27 ways; all of them, with groups of different sizes."""
    logs, groups = np.array([0.5, 0.1, 0.9, 0.2, 0.4, 0.4]), np.array([0, 1, 1, 2, 2, 2])
    want: dict[float, float] = {}
    for draw in itertools.product(range(3), repeat=3):
        median = round(float(np.median(np.concatenate([logs[groups == g] for g in draw]))), 9)
        want[median] = want.get(median, 0.0) + 1 / 27
    found = bootstrap_medians(logs, groups, resamples=20_000).round(9)
    assert set(found) == set(want), "every draw's median, no other"
    for median, share in want.items():
        assert np.mean(found == median) == pytest.approx(share, abs=0.015), median


@pytest.mark.parametrize("sittings", [np.arange(30), np.repeat(np.arange(10), 3)])
def test_it_draws_as_plain_resampling_does(sittings: np.ndarray) -> None:
    logs = np.random.default_rng(5).standard_t(3, 30) * 0.02 + 0.005 * (sittings % 7)
    rng = np.random.default_rng(99)
    every = [logs[sittings == s] for s in np.unique(sittings)]
    plain = [
        np.median(np.concatenate([every[i] for i in rng.integers(0, len(every), len(every))]))
        for _ in range(4000)
    ]
    shares = (0.025, 0.25, 0.5, 0.75, 0.975)
    found = np.quantile(bootstrap_medians(logs, sittings, resamples=4000), shares)
    np.testing.assert_allclose(found, np.quantile(plain, shares), atol=0.15 * np.std(plain))


def test_the_standard_error_is_that_of_a_median() -> None:
    logs = np.random.default_rng(1).normal(0, 0.1, 400)
    assert standard_error(logs) == pytest.approx(1.2533 * 0.1 / 20, rel=0.25)


def test_sittings_that_differ_make_it_wider_than_rounds_do() -> None:
    rng = np.random.default_rng(2)
    sittings = np.repeat(np.arange(12), 8)
    logs = (0.05 * rng.normal(size=12))[sittings] + 0.001 * rng.normal(size=96)
    by_rounds, by_sittings = interval(logs), interval(logs, sittings=sittings)
    assert by_sittings.half_width > 1.5 * by_rounds.half_width
    assert standard_error(logs, sittings) > 1.5 * standard_error(logs)


def test_too_few_sittings_are_not_drawn() -> None:
    logs = np.random.default_rng(3).normal(size=24)
    few = np.arange(24) % (LEAST_SITTINGS - 1)
    enough = np.arange(24) % LEAST_SITTINGS
    assert interval(logs, sittings=few) == interval(logs)
    assert interval(logs, sittings=enough) != interval(logs)
    assert standard_error(logs, few) == standard_error(logs)


def test_sittings_may_have_any_numbers() -> None:
    logs = np.random.default_rng(4).normal(size=24)
    assert interval(logs, sittings=100 - 7 * SITTINGS[::-1]) == interval(logs, sittings=SITTINGS)


@pytest.mark.parametrize("sitting_effect", [0.0, 0.01, 0.03])
def test_the_interval_is_right_as_often_as_it_says(sitting_effect: float) -> None:
    """48 heavy-tailed rounds in 12 sittings; 95% intervals of a median that is known."""
    sittings, truth, right = np.repeat(np.arange(12), 4), 0.05, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shared = sitting_effect * rng.standard_normal(12)[sittings]
        logs = truth + shared + 0.02 * rng.standard_t(3, 48)
        found = interval(logs, sittings=sittings)
        right += found.low <= math.exp(truth) <= found.high
    assert 0.90 <= right / 300 <= 0.99


# answers


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (0, 3, 0.25), (1, 5, 14 / 64), (4, 4, 1.0), (0, 1, 1.0), (2, 8, 112 / 1024)],
)
def test_mcnemar_by_hand(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(p)
    assert mcnemar(won, lost) == pytest.approx(p)


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (3, 0, 0.125), (0, 3, 1.0), (5, 1, 7 / 64), (1, 1, 0.75), (30, 0, 2.0**-30)],
)
def test_drop_p_by_hand(lost: int, won: int, p: float) -> None:
    assert drop_p(lost, won) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_what_did_not_get_worse_is_no_proof_of_a_drop(lost: int, more: int) -> None:
    assert 0.5 <= drop_p(lost, lost + more) <= 1.0
    assert drop_p(lost + 1, more) <= drop_p(lost, more) + 1e-12, "more lost is surer"


@given(st.integers(0, 200), st.integers(0, 200))
def test_two_sides_are_twice_the_smaller_one(lost: int, won: int) -> None:
    one = min(drop_p(lost, won), drop_p(won, lost))
    assert mcnemar(lost, won) == pytest.approx(min(1.0, 2 * one))


def test_many_images_do_not_overflow() -> None:
    assert drop_p(50_000, 50_000) == pytest.approx(0.5, abs=0.01)
    assert mcnemar(50_000, 50_000) == pytest.approx(1.0)
    z = (40_000 - 39_000) / math.sqrt(79_000)
    assert drop_p(40_000, 39_000) == pytest.approx(1 - NormalDist().cdf(z), rel=0.05)
    assert 0.0 <= drop_p(60_000, 10_000) < 1e-300


def answers(lost: int, won: int, both: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which images were right before and after."""
    counts = (lost, won, both, neither)
    before = np.repeat([True, False, True, False], counts)
    return before, np.repeat([False, True, True, False], counts)


def test_a_drop_is_positive_and_in_shares() -> None:
    drop, low, high = paired_drop(*answers(30, 10, 900, 60))
    assert drop == pytest.approx(0.02)
    assert 0.0 < low < drop < high < 0.04
    z = NormalDist().inv_cdf(0.975) * math.sqrt((40 - 20**2 / 1000) / 1000**2)
    assert (drop - low, high - drop) == pytest.approx((z, z), rel=0.15)
    gain, least, most = paired_drop(*answers(10, 30, 900, 60))
    assert gain == pytest.approx(-0.02)
    assert least < gain < most < 0.0


def test_a_drop_of_images_that_agree_or_all_differ_has_no_width() -> None:
    assert paired_drop(*answers(0, 0, 7, 3)) == (0.0, 0.0, 0.0)
    assert paired_drop(*answers(10, 0, 0)) == (1.0, 1.0, 1.0)
    assert paired_drop(*answers(0, 10, 0)) == (-1.0, -1.0, -1.0)


@settings(deadline=None, max_examples=60)
@given(*[st.integers(0, 40)] * 2, st.integers(1, 200), levels)
def test_a_drop_lies_within_its_bounds(lost: int, won: int, both: int, level: float) -> None:
    pair = answers(lost, won, both)
    drop, low, high = paired_drop(*pair, level)
    assert low - 1e-12 <= drop <= high + 1e-12
    assert paired_drop(*pair, level) == (drop, low, high), "the same every time"
    _, lower, higher = paired_drop(*pair, 0.9999)
    assert lower <= low
    assert high <= higher


def test_images_that_would_tell_by_hand() -> None:
    # z^2 (lost + won) / (lost - won)^2 of the images at hand; z of 5% is 1.645
    assert images_to_settle(*answers(100, 80, 9820), 0.05) == math.ceil(10_000 * 2.705543 * 0.45)


def test_a_smaller_drop_and_more_sureness_take_more_images() -> None:
    needed = [images_to_settle(*answers(n, 20, 10_000 - n), 0.05) for n in (22, 25, 30, 40)]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == 4
    pair = answers(25, 20, 9955)
    asked = [images_to_settle(*pair, alpha) for alpha in (0.1, 0.05, 0.01, 0.001)]
    assert asked == sorted(asked)
    assert len(set(asked)) == 4


def test_what_did_not_drop_needs_no_more_images() -> None:
    assert images_to_settle(*answers(5, 5, 90), 0.05) == 100
    assert images_to_settle(*answers(0, 5, 95), 0.05) == 100


def test_images_at_hand_that_do_not_tell_are_not_enough() -> None:
    pair = answers(3, 0, 997)
    assert drop_p(3, 0) > 0.05, "1,000 images do not tell"
    assert images_to_settle(*pair, 0.05) > 1000


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.490, 0.943),
        (0, 10, 0.0, 0.278),
        (10, 10, 0.722, 1.0),
        (2653, 3000, 0.8724, 0.8953),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    assert statistics.wilson(right, total) == pytest.approx((low, high), abs=6e-4)


def test_wilson_of_nothing_says_nothing() -> None:
    assert statistics.wilson(0, 0) == (0.0, 1.0)
