"""Turns, sittings and bursts, on a clock that the subjects themselves move: no figure is chance."""

from __future__ import annotations

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from edgecv.benchmark import sampling
from edgecv.benchmark.sampling import (
    DRIFT,
    MOST_CALLS,
    OPENING_SHARE,
    SITTING_ROUNDS,
    Sampler,
    warm_up,
)
from edgecv.benchmark.statistics import interval, standard_error
from edgecv.errors import BundleError, EngineError

MS = 1_000_000  # nanoseconds
Z = NormalDist().inv_cdf(0.975)


class Clock:
    """In place of the module `time`: it moves when a subject works, and only then."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0

    def perf_counter_ns(self) -> int:
        return self.wall

    def perf_counter(self) -> float:
        return self.wall / 1e9

    def process_time_ns(self) -> int:
        return self.cpu

    def pass_by(self, wall: float, cpu: float | None = None) -> None:
        self.wall += round(wall)
        self.cpu += round(wall if cpu is None else cpu)


@dataclass
class Fake:
    """A subject whose calls take as long as `times` says, in nanoseconds; log: what was called."""

    name: str
    clock: Clock
    times: Callable[[], float]
    cpu_share: float = 1.0
    opening_ns: float = 0.0
    log: list[str] = field(default_factory=list)

    def open(self) -> Callable[[], Any]:
        self.log.append(f"open {self.name}")
        self.clock.pass_by(self.opening_ns)
        return self._call

    def close(self) -> None:
        self.log.append(f"close {self.name}")

    def _call(self) -> None:
        self.log.append(self.name)
        taken = self.times()
        self.clock.pass_by(taken, self.cpu_share * taken)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sampling, "time", made)
    monkeypatch.setattr(sampling, "energy_uj", lambda: None)
    return made


def noisy(seed: int, ns: float, noise: float = 0.05) -> Callable[[], float]:
    rng = np.random.default_rng(seed)
    return lambda: ns * math.exp(noise * rng.standard_normal())


def three(clock: Clock, seed: int = 0, burst_ms: float = 1.0) -> tuple[Sampler, list[str]]:
    """A sampler of a, b and c of 0.1, 0.2 and 0.4 ms with noise, and what they were called for."""
    log: list[str] = []
    times = {"a": 0.1 * MS, "b": 0.2 * MS, "c": 0.4 * MS}
    fakes = [Fake(n, clock, noisy(i, t), log=log) for i, (n, t) in enumerate(times.items())]
    return Sampler(fakes, burst_ms, seed), log


# turns


def turns(log: list[str], names: str = "abc") -> list[str]:
    """The order of turns: who was called, without repetitions and without the warm-ups."""
    called = [x for x in log if x in names]
    return [a for a, b in pairwise([*called, ""]) if a != b]


def test_every_round_calls_every_subject_as_often(clock: Clock) -> None:
    sampler, log = three(clock)
    sampler.sample(1)
    del log[:]
    sampler.sample(SITTING_ROUNDS - 1)
    bursts = {s.subject.name: s.burst for s in sampler.series}
    # one call to settle in, then the burst
    assert Counter(log) == {n: (SITTING_ROUNDS - 1) * (b + 1) for n, b in bursts.items()}
    for series in sampler.series:
        assert len(series.round_wall) == len(series.round_cpu) == sampler.rounds == SITTING_ROUNDS
        assert len(series.wall) == SITTING_ROUNDS * series.burst


def orders(clock: Clock, seed: int) -> list[str]:
    sampler, log = three(clock, seed)
    sampler.sample(1)
    found = []
    for _ in range(40):
        del log[:]
        sampler.sample(1)
        if not log[0].startswith("open"):
            found.append("".join(turns(log)))
    return found


def test_the_order_of_turns_is_the_seeds(clock: Clock) -> None:
    first = orders(clock, seed=1)
    assert first == orders(clock, seed=1)
    assert first != orders(clock, seed=2)
    assert {"".join(sorted(order)) for order in first} == {"abc"}
    assert len(set(first)) >= 5, "turns are shuffled anew every round"


def test_every_sitting_opens_every_subject_anew(clock: Clock) -> None:
    sampler, log = three(clock, burst_ms=5.0)
    sampler.sample(6 * SITTING_ROUNDS)
    assert sampler.sitting_of == sorted([*range(1, 7)] * SITTING_ROUNDS)
    assert sampler.sittings == 6
    opened = [x for x in log if x.startswith("open")]
    assert Counter(opened) == dict.fromkeys(("open a", "open b", "open c"), 6)
    sittings = [tuple(opened[i : i + 3]) for i in range(0, len(opened), 3)]
    assert all(len(set(s)) == 3 for s in sittings)
    assert len(set(sittings)) > 1, "where memory comes to lie is shuffled too"


def test_asking_for_rounds_bit_by_bit_is_the_same(clock: Clock) -> None:
    whole, first = three(clock)
    whole.sample(9)
    bits, second = three(clock)
    for rounds in (1, 0, 5, 3):
        bits.sample(rounds)
    assert first == second
    assert [s.round_wall for s in whole.series] == [s.round_wall for s in bits.series]


def test_slow_openers_sit_longer(clock: Clock) -> None:
    log: list[str] = []
    slow = [Fake(n, clock, lambda: 5.0 * MS, opening_ns=100 * MS, log=log) for n in "ab"]
    sampler = Sampler(slow, burst_ms=5.0)
    sampler.sample(150)
    lengths = [n for _, n in sorted(Counter(sampler.sitting_of).items())]
    opening, per_round = 2 * (100 + 9 * 5.0), 2 * 5.0  # ms; nine calls are the warm-up
    least = opening / OPENING_SHARE / per_round
    assert lengths[:-1] == [math.ceil(least)] * (len(lengths) - 1)
    assert len(lengths) > 2


# warming up


def test_warming_up_ends_soon_for_a_steady_call(clock: Clock) -> None:
    steady = Fake("a", clock, lambda: 5.0 * MS)
    assert warm_up(steady.open()) == (9, 5.0 * MS), "three windows of three calls"
    quick = Fake("b", clock, lambda: 10_000.0)
    assert warm_up(quick.open()) == (600, 10_000.0), "three windows of 2 ms"
    quickest = Fake("c", clock, lambda: 100.0)
    assert warm_up(quickest.open()) == (3000, 100.0), "a window holds 1000 calls at the most"


def test_warming_up_goes_on_while_a_call_gets_faster(clock: Clock) -> None:
    at = count()
    learning = Fake("a", clock, lambda: max(1.0, 20.0 - next(at)) * MS)
    calls, steady = warm_up(learning.open())
    assert steady == 1.0 * MS
    assert 20 + 3 <= calls <= 20 + 12


def test_warming_up_is_not_fooled_by_one_slow_window(clock: Clock) -> None:
    at = count()
    # the second window is slower than the first: calm once, not twice
    times = [5.0] * 3 + [6.0] * 3 + [4.0] * 3
    hasty = Fake("a", clock, lambda: (times[i] if (i := next(at)) < len(times) else 4.0) * MS)
    calls, steady = warm_up(hasty.open())
    assert (calls, steady) == (15, 4.0 * MS)


def test_warming_up_ends_even_if_a_call_never_settles(clock: Clock) -> None:
    at = count()
    restless = Fake("a", clock, lambda: 100.0 * MS * 0.98 ** next(at))
    calls, _ = warm_up(restless.open(), most_s=1.0)
    assert 1.0 <= clock.perf_counter() < 1.5
    assert calls == len(restless.log) - 1


def test_warm_up_calls_are_counted_over_sittings(clock: Clock) -> None:
    fake = Fake("a", clock, lambda: 5.0 * MS)
    sampler = Sampler([fake])
    sampler.sample(1)
    assert sampler.series[0].warmup == 9
    while sampler.sittings < 3:
        sampler.sample(1)
    assert sampler.series[0].warmup == 27
    assert len(sampler.series[0].wall) == sampler.rounds, "and are not in the figures"


# bursts


@pytest.mark.parametrize(
    ("call_ms", "burst_ms", "calls"),
    [(0.1, 5.0, 50), (0.1, 1.0, 10), (7.0, 5.0, 1), (0.0001, 50.0, MOST_CALLS)],
)
def test_a_burst_is_as_long_as_it_should_be(
    clock: Clock, call_ms: float, burst_ms: float, calls: int
) -> None:
    sampler = Sampler([Fake("a", clock, lambda: call_ms * MS)], burst_ms)
    sampler.sample(1)
    assert sampler.series[0].burst == calls
    assert len(sampler.series[0].wall) == calls


def test_a_real_clock_gives_bursts_of_about_that_length() -> None:
    class Spin:
        name = "spin"

        def open(self) -> Callable[[], Any]:
            def call() -> None:
                end = time.perf_counter_ns() + 50_000
                while time.perf_counter_ns() < end:
                    pass

            return call

        def close(self) -> None: ...

    sampler = Sampler([Spin()], burst_ms=2.0)
    sampler.sample(2)
    (series,) = sampler.series
    assert 1 <= series.burst <= 40, "no call was shorter than 0.05 ms"
    assert min(series.wall) >= 50_000
    assert len(series.wall) == 2 * series.burst
    assert all(v > 0 for v in series.round_cpu)


def test_a_round_is_the_median_of_its_burst(clock: Clock) -> None:
    slow_once = count(1)
    fake = Fake("a", clock, lambda: (90.0 if next(slow_once) % 10 == 0 else 1.0) * MS)
    sampler = Sampler([fake], burst_ms=10.0)
    sampler.sample(3)
    (series,) = sampler.series
    assert series.round_wall == [1.0 * MS] * 3
    assert max(series.wall) == 90 * MS
    assert series.round_cpu == [(9 * 1 + 90) / 10 * MS] * 3, "of all its calls"


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


@pytest.mark.usefixtures("collecting")
def test_garbage_is_not_collected_in_a_burst_and_again_after(clock: Clock) -> None:
    seen = []

    def look() -> float:
        seen.append(gc.isenabled())
        return 5.0 * MS

    Sampler([Fake("a", clock, look)]).sample(2)
    assert seen == [True] * 9 + [False] * 2
    assert gc.isenabled()
    gc.disable()
    Sampler([Fake("a", clock, look)]).sample(1)
    assert not gc.isenabled(), "as it was before"


@pytest.mark.usefixtures("collecting")
def test_garbage_is_collected_again_after_a_call_that_failed(clock: Clock) -> None:
    def fail_in_a_burst() -> float:
        if not gc.isenabled():
            raise EngineError("a", "died")
        return 5.0 * MS

    with pytest.raises(EngineError, match="died"):
        Sampler([Fake("a", clock, fail_in_a_burst)]).sample(1)
    assert gc.isenabled()


# ratios


def test_a_ratio_is_of_the_first_over_the_second(clock: Clock) -> None:
    fast, slow = Fake("a", clock, lambda: 10_000.0), Fake("b", clock, lambda: 20_000.0)
    slow.cpu_share = 0.25
    sampler = Sampler([fast, slow], burst_ms=1.0)
    sampler.sample(8)
    assert sampler.logs(1).tolist() == pytest.approx([math.log(2)] * 8)
    assert sampler.logs(0, 1).tolist() == pytest.approx([-math.log(2)] * 8)
    assert sampler.ratio(1).ratio == pytest.approx(2.0)
    assert sampler.ratio(0, 1).ratio == pytest.approx(0.5)
    assert sampler.ratio(1, cpu=True).ratio == pytest.approx(0.5)


def test_logs_are_round_by_round(clock: Clock) -> None:
    sampler, _ = three(clock)
    sampler.sample(5)
    a, _, c = (np.array(s.round_wall) for s in sampler.series)
    np.testing.assert_allclose(sampler.logs(2, 0), np.log(c / a))
    a, _, c = (np.array(s.round_cpu) for s in sampler.series)
    np.testing.assert_allclose(sampler.logs(2, 0, cpu=True), np.log(c / a))


def test_a_subject_is_exactly_as_fast_as_itself(clock: Clock) -> None:
    sampler, _ = three(clock)
    sampler.sample(30)
    for i in range(3):
        same = sampler.ratio(i, i)
        assert (same.ratio, same.low, same.high) == (1.0, 1.0, 1.0)
        assert sampler.error(i, i) == 0.0


def test_what_the_machine_drifts_by_is_in_every_other_interval(clock: Clock) -> None:
    fakes = [Fake("a", clock, lambda: 10_000.0), Fake("b", clock, lambda: 20_000.0)]
    sampler = Sampler(fakes, burst_ms=1.0)
    sampler.sample(8)
    found = sampler.ratio(1)
    assert found.low == pytest.approx(2.0 * math.exp(-Z * DRIFT))
    assert found.high == pytest.approx(2.0 * math.exp(Z * DRIFT))
    assert sampler.ratio(1, level=0.5).half_width < found.half_width


def test_intervals_and_errors_are_by_sittings(clock: Clock) -> None:
    sampler, _ = three(clock, burst_ms=5.0)
    sampler.sample(8 * SITTING_ROUNDS)
    sittings, logs = np.array(sampler.sitting_of), sampler.logs(2, 1)
    assert len(set(sittings)) == 8
    assert sampler.ratio(2, 1, 0.9) == interval(logs, 0.9, sittings).widened(DRIFT)
    assert interval(logs, 0.9, sittings) != interval(logs, 0.9)
    assert sampler.error(2, 1) == standard_error(logs, sittings)


# energy


def test_energy_is_per_call_and_a_counter_that_wrapped_is_left_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([1000, 6000, 9000, 50, 100, 2100])
    monkeypatch.setattr(sampling, "energy_uj", lambda: next(readings))
    sampler = Sampler([Fake("a", clock, lambda: 0.5 * MS)], burst_ms=5.0)
    sampler.sample(3)
    assert sampler.series[0].burst == 10
    assert sampler.series[0].round_energy == [500.0, 200.0]


def test_without_a_counter_there_is_no_energy(clock: Clock) -> None:
    sampler, _ = three(clock)
    sampler.sample(2)
    assert [s.round_energy for s in sampler.series] == [[], [], []]


# the end


def test_closing_closes_all_and_nothing_runs_after(clock: Clock) -> None:
    sampler, log = three(clock)
    sampler.sample(2)
    del log[:]
    sampler.close()
    assert sorted(log) == ["close a", "close b", "close c"]
    for series in sampler.series:
        with pytest.raises(RuntimeError, match="closed"):
            series.call()
    assert sampler.ratio(1).ratio == pytest.approx(2.0, rel=0.2), "what was measured is still there"


def test_a_subject_that_cannot_be_opened_says_so(clock: Clock) -> None:
    class Broken(Fake):
        def open(self) -> Callable[[], Any]:
            raise BundleError("b.edgecv", "is damaged")

    good = Fake("a", clock, lambda: 1.0 * MS)
    sampler = Sampler([good, Broken("b", clock, lambda: 1.0)])
    with pytest.raises(BundleError, match=r"b\.edgecv: is damaged"):
        sampler.sample(1)
    sampler.close()
    assert "close a" in good.log
