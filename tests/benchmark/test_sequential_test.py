"""Slower or not: the rule by hand, its error rates by simulation, and real bundles on a real clock.

Simulated subjects move the clock themselves, so that what is true of them is known.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv import child
from edgecv.benchmark import sampling, sequential_test
from edgecv.benchmark.calibration import ONE_THREAD, VERSION
from edgecv.benchmark.sampling import Sampler
from edgecv.benchmark.sequential_test import (
    ALPHA,
    CALIBRATED_ROUNDS,
    INCONCLUSIVE,
    LEAST_ROUNDS,
    LOOKS,
    PASS,
    REGRESSION,
    ROUNDS,
    TRANSFER,
    Verdict,
    against_stored,
    calibrated,
    judge,
    live,
    looks,
)
from edgecv.benchmark.statistics import LEAST_SITTINGS
from edgecv.errors import MissingExtraError
from edgecv.runtime.archive import write_bundle
from tests.benchmark.test_sampling import MS, Clock, Fake
from tests.runtime.conftest import described, golden, network

Told = list[tuple[float, float, str]]


# the rule


@pytest.mark.parametrize(
    ("bounds", "floor", "limit", "verdict"),
    [
        ((0.98, 1.02), 0.01, 0.05, PASS),
        ((1.06, 1.10), 0.01, 0.05, REGRESSION),
        ((1.02, 1.08), 0.01, 0.05, INCONCLUSIVE),
        ((0.5, 0.6), 0.01, 0.05, PASS),
        ((1.05, 1.10), 0.01, 0.05, INCONCLUSIVE),  # at the limit is not beyond it
        ((0.95, 1.05), 0.01, 0.05, INCONCLUSIVE),
        ((0.98, 1.02), 0.05, 0.05, INCONCLUSIVE),  # a limit that noise reaches is no limit
        ((0.5, 0.6), 0.06, 0.05, INCONCLUSIVE),
        ((1.834, 1.969), 0.041, 0.01, REGRESSION),  # what is above both is
        ((10.33, 28.67), 0.057, 0.05, REGRESSION),
        ((1.02, 1.04), 0.041, 0.01, INCONCLUSIVE),  # between limit and noise
        ((1.041, 1.09), 0.041, 0.01, INCONCLUSIVE),  # at the noise is not beyond it
        ((1.042, 1.09), 0.041, 0.01, REGRESSION),
        ((0.98, 1.02), 0.06, 0.05, INCONCLUSIVE),
        ((0.98, 1.02), 0.0499, 0.05, PASS),
        ((1.0, 1.0), 0.0, 0.0, INCONCLUSIVE),
    ],
)
def test_the_rule_by_hand(
    bounds: tuple[float, float], floor: float, limit: float, verdict: str
) -> None:
    assert judge(bounds, floor, limit) == verdict


@given(st.integers(1, 1_000_000))
def test_looks_go_on_to_the_end_ever_more_apart(most: int) -> None:
    found = looks(most)
    assert found == sorted(set(found))
    assert found[0] == min(ROUNDS, most)
    assert found[-1] == most
    assert 1 <= len(found) <= LOOKS
    steps = np.diff(found[:-1])  # the last step may be what is left
    assert (np.diff(steps) >= -1).all()


def test_a_budget_of_many_rounds_is_looked_at_as_often_as_allowed() -> None:
    assert len(looks(10 * ROUNDS)) == LOOKS
    assert looks(ROUNDS + 1) == [ROUNDS, ROUNDS + 1]
    assert looks(8) == [8]


# both measured now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (sampling, sequential_test):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(sampling, "energy_uj", lambda: None)
    return made


class Simulated(Fake):
    """A subject of 5 ms that is `ratio` times as slow, with noise of calls and of sittings."""

    def __init__(self, clock: Clock, seed: int, ratio: float, noise: float) -> None:
        self.rng, self.noise, self.shift = np.random.default_rng(seed), noise, 0.0
        super().__init__(str(seed), clock, lambda: 5.0 * MS * ratio * self._factor())

    def open(self) -> Callable[[], Any]:
        self.shift = self.rng.normal(0, self.noise / 4)
        return super().open()

    def _factor(self) -> float:
        return math.exp(self.shift + self.noise * self.rng.standard_normal())


def judged(
    clock: Clock,
    ratio: float,
    noise: float = 0.01,
    limit: float = 0.05,
    budget_s: float = 2.0,
    seed: int = 0,
    told: Told | None = None,
) -> tuple[Verdict, Sampler]:
    """What `live` says of a candidate that is truly `ratio` times as slow."""
    ratios = (1.0, 1.0, ratio)
    fakes = [Simulated(clock, 10 * seed + i, r, noise) for i, r in enumerate(ratios)]
    sampler = Sampler(fakes, burst_ms=5.0, seed=seed)
    tell = told.append if told is not None else lambda _: None
    return live(sampler, limit, ALPHA, budget_s, lambda *args: tell(args)), sampler


def test_one_that_is_as_fast_passes_at_the_first_look(clock: Clock) -> None:
    told: Told = []
    found, sampler = judged(clock, 1.0, told=told)
    assert found.verdict == PASS
    assert found.bounds[0] < found.ratio < found.bounds[1] < 1.05
    assert 0.0 < found.floor < 0.05
    assert (found.reason, found.hint) == ("", "")
    assert sampler.rounds == ROUNDS, "no more than is needed"
    assert len(told) == 1
    done, total, note = told[0]
    assert done <= total == 2.0
    assert note == f"{found.ratio - 1:+.1%}, noise floor {found.floor:.1%}"


def test_one_that_is_faster_passes(clock: Clock) -> None:
    found, _ = judged(clock, 0.5)
    assert (found.verdict, found.ratio) == (PASS, pytest.approx(0.5, rel=0.02))


def test_one_that_is_slower_is_a_regression_at_the_first_look(clock: Clock) -> None:
    found, sampler = judged(clock, 1.2)
    assert found.verdict == REGRESSION
    assert 1.05 < found.bounds[0] < found.ratio < found.bounds[1]
    assert found.ratio == pytest.approx(1.2, rel=0.02)
    assert (found.reason, found.hint) == ("", "")
    assert sampler.rounds == ROUNDS


def test_what_the_first_look_cannot_tell_a_later_one_may(clock: Clock) -> None:
    found, sampler = judged(clock, 1.035, noise=0.1, budget_s=40.0)
    assert found.verdict == PASS
    assert sampler.rounds > ROUNDS


def slow_openers(clock: Clock, opening_ms: float, budget_s: float) -> list[int]:
    """Sittings there had been at each look at a candidate that is half as slow again."""
    fakes = [Simulated(clock, i, r, 0.01) for i, r in enumerate((1.0, 1.0, 1.5))]
    for fake in fakes:
        fake.opening_ns = opening_ms * MS
    sampler, looked = Sampler(fakes, burst_ms=5.0), []
    found = live(sampler, 0.05, ALPHA, budget_s, lambda *_: looked.append(sampler.sittings))
    assert found.verdict == REGRESSION
    assert clock.perf_counter() < 1.25 * budget_s
    return looked


@pytest.mark.parametrize("opening_ms", [0.0, 100.0])
def test_few_sittings_are_no_ground_for_a_verdict(clock: Clock, opening_ms: float) -> None:
    """One that opens slowly sits long, and is looked at later."""
    (sittings,) = slow_openers(clock, opening_ms, 20.0)
    assert sittings >= LEAST_SITTINGS


def test_a_budget_for_few_sittings_ends_in_a_verdict_all_the_same(clock: Clock) -> None:
    (sittings,) = slow_openers(clock, 2000.0, 20.0)
    assert sittings < LEAST_SITTINGS


def test_what_opens_slowly_may_use_its_budget_for_sittings(clock: Clock) -> None:
    """Six sittings of 35 rounds take 9 s of the 20 s that are there."""
    (sittings,) = slow_openers(clock, 300.0, 20.0)
    assert sittings >= LEAST_SITTINGS


def test_bounds_are_shared_between_the_looks(clock: Clock) -> None:
    found, sampler = judged(clock, 1.2)
    again = sampler.ratio(2, 0, 1.0 - 2.0 * ALPHA / LOOKS)
    same = sampler.ratio(1, 0, 1.0 - 2.0 * ALPHA / LOOKS)
    assert found.bounds == (again.low, again.high)
    assert found.floor == max(same.high - 1, 1 / same.low - 1)


def test_a_limit_below_the_noise_is_refused_with_one_that_is_not(clock: Clock) -> None:
    found, _ = judged(clock, 1.0, noise=0.3, budget_s=1.0)
    assert found.verdict == INCONCLUSIVE
    assert found.floor >= 0.05
    assert f"a limit of 5.0% is below this machine's noise floor of {found.floor:.1%}" in (
        found.reason
    )
    offered = re.match(r"--max-slowdown ([\d.]+)%, a longer --budget", found.hint)
    assert offered
    assert found.floor <= float(offered[1]) / 100 <= found.floor + 0.005
    assert judge(found.bounds, found.floor, float(offered[1]) / 100 + 1e-9) != REGRESSION


def test_a_noisy_machine_cannot_say_regression_of_what_its_noise_reaches(clock: Clock) -> None:
    found, _ = judged(clock, 1.1, noise=0.3, limit=0.01, budget_s=1.0)
    assert found.verdict == INCONCLUSIVE
    assert found.floor > 0.1
    assert "noise floor" in found.reason


def test_a_noisy_machine_sees_what_is_far_above_its_noise(clock: Clock) -> None:
    found, sampler = judged(clock, 3.0, noise=0.3, limit=0.01, budget_s=1.0)
    assert found.verdict == REGRESSION
    assert found.floor > 0.01
    assert found.bounds[0] > 1.0 + found.floor
    assert (found.reason, found.hint) == ("", "")
    assert sampler.rounds <= 2 * ROUNDS


def test_a_floor_that_the_budget_cannot_reach_is_not_waited_for(clock: Clock) -> None:
    found, sampler = judged(clock, 1.0, noise=0.5, limit=0.02, budget_s=30.0)
    assert found.verdict == INCONCLUSIVE
    assert sampler.rounds <= 2 * ROUNDS
    assert clock.perf_counter() < 10.0


def test_too_close_to_the_limit_is_inconclusive_with_the_time_that_would_tell(
    clock: Clock,
) -> None:
    told: Told = []
    found, sampler = judged(clock, 1.04, noise=0.05, budget_s=12.0, told=told)
    assert found.verdict == INCONCLUSIVE
    low, high = found.bounds
    assert low < 1.05 < high
    assert f"between {low - 1:+.1%} and {high - 1:+.1%}, around the limit of 5.0%" in found.reason
    offered = re.match(r"--budget (\d+)s, or a calmer machine$", found.hint)
    assert offered
    assert 3.0 < int(offered[1]) < 5000
    assert int(offered[1]) % 30 == 0
    assert len(told) <= LOOKS
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert sampler.rounds > ROUNDS
    assert clock.perf_counter() > 12.0, "the budget is used"


def test_exactly_at_the_limit_no_budget_helps(clock: Clock) -> None:
    found, _ = judged(clock, 1.05, noise=0.001, budget_s=2.0)
    assert found.verdict == INCONCLUSIVE
    assert found.hint == "too close to the limit to tell: another limit"


def test_a_budget_is_not_offered_where_the_machines_drift_is_in_the_way(clock: Clock) -> None:
    """0.4% below the limit, and the bounds are never nearer than 0.7% to the ratio."""
    found, _ = judged(clock, 1.0458, noise=0.002, budget_s=10.0)
    assert found.verdict == INCONCLUSIVE
    assert "--budget" not in found.hint


def test_a_budget_of_a_few_rounds_ends_all_the_same(clock: Clock) -> None:
    found, sampler = judged(clock, 1.0, noise=0.2, budget_s=0.001)
    assert found.verdict == INCONCLUSIVE
    assert sampler.rounds == LEAST_ROUNDS


def rates(clock: Clock, ratio: float, repetitions: int, **options: Any) -> Counter[str]:
    found = (judged(clock, ratio, seed=s, **options)[0].verdict for s in range(repetitions))
    return Counter(found)


def test_what_did_not_change_is_never_a_regression(clock: Clock) -> None:
    assert rates(clock, 1.0, 200) == {PASS: 200}


@pytest.mark.parametrize("ratio", [1.0, 1.01])
def test_a_limit_below_the_noise_makes_no_regression_of_noise(clock: Clock, ratio: float) -> None:
    found = rates(clock, ratio, 100, noise=0.05, limit=0.01, budget_s=2.0)
    assert found == {INCONCLUSIVE: 100}


def test_twice_the_limit_is_always_a_regression(clock: Clock) -> None:
    assert rates(clock, 1.10, 100) == {REGRESSION: 100}


def test_at_the_limit_the_errors_are_as_rare_as_they_are_said_to_be(clock: Clock) -> None:
    """Looked at up to six times: without sharing alpha, one in five or so would be wrong."""
    found = rates(clock, 1.05, 120, noise=0.02, budget_s=2.5)
    assert found[REGRESSION] <= 1.5 * ALPHA * 120
    assert found[PASS] <= 1.5 * ALPHA * 120


# against figures


def test_measuring_against_the_calibration_workload_ends_when_it_is_sure(clock: Clock) -> None:
    fakes = [Simulated(clock, 1, 1.0, 0.01), Simulated(clock, 2, 2.0, 0.01)]
    told: Told = []
    sampler = Sampler(fakes, burst_ms=5.0)
    log_ratio, error = calibrated(sampler, 1, 60.0, 0.0033, lambda *args: told.append(args))
    assert log_ratio == pytest.approx(math.log(2), abs=4 * error)
    assert log_ratio == np.median(sampler.logs(1))
    assert 0 < error <= 0.0033
    assert sampler.rounds == CALIBRATED_ROUNDS, "and not before"
    assert told[-1][2] == f"±{2 * error:.1%} against the calibration workload"


def test_measuring_against_it_ends_with_the_budget(clock: Clock) -> None:
    fakes = [Simulated(clock, 1, 1.0, 0.5), Simulated(clock, 2, 2.0, 0.5)]
    told: Told = []
    sampler = Sampler(fakes, burst_ms=5.0)
    _, error = calibrated(sampler, 1, 3.0, 0.0033, lambda *args: told.append(args))
    assert error > 0.0033
    assert 3.0 <= clock.perf_counter() < 4.0
    assert all(done <= total for done, total, _ in told)


def test_two_runs_against_the_workload_by_hand() -> None:
    found = against_stored((math.log(2.2), 0.004), (math.log(2.0), 0.003), 0.05, 0.05)
    error = math.sqrt(0.004**2 + 0.003**2 + 2 * TRANSFER**2)
    z = NormalDist().inv_cdf(0.95)  # one-sided
    assert found.ratio == pytest.approx(1.1)
    assert found.bounds[0] == pytest.approx(1.1 * math.exp(-z * error))
    assert found.bounds[1] == pytest.approx(1.1 * math.exp(z * error))
    assert found.floor == pytest.approx(math.exp(z * error) - 1)
    assert (found.verdict, found.reason, found.hint) == (REGRESSION, "", "")


@pytest.mark.parametrize(
    ("ratio", "error", "limit", "verdict", "says"),
    [
        (1.0, 0.003, 0.05, PASS, ""),
        (0.5, 0.003, 0.05, PASS, ""),
        (1.1, 0.003, 0.05, REGRESSION, ""),
        (1.045, 0.003, 0.05, INCONCLUSIVE, "around the limit of 5.0%"),
        (1.0, 0.003, 0.005, INCONCLUSIVE, "a limit of 0.5% is below the noise floor"),
        (1.5, 0.2, 0.05, INCONCLUSIVE, "a limit of 5.0% is below the noise floor"),
        (1.012, 0.003, 0.005, INCONCLUSIVE, "a limit of 0.5% is below the noise floor"),
        (1.9, 0.003, 0.005, REGRESSION, ""),
    ],
)
def test_verdicts_against_figures(
    ratio: float, error: float, limit: float, verdict: str, says: str
) -> None:
    found = against_stored((math.log(ratio) - 1.0, error), (-1.0, error), limit, 0.05)
    assert found.verdict == verdict
    assert says in found.reason
    assert ("the baseline's own bundle" in found.hint) == (verdict == INCONCLUSIVE)


def test_sharing_alpha_makes_it_more_careful() -> None:
    now, then = (math.log(1.064), 0.003), (0.0, 0.003)
    assert against_stored(now, then, 0.05, 0.05).verdict == REGRESSION
    shared = against_stored(now, then, 0.05, 0.05 / 20)
    assert shared.verdict == INCONCLUSIVE
    assert shared.floor > against_stored(now, then, 0.05, 0.05).floor


def stored_rates(ratio: float, repetitions: int) -> Counter[str]:
    """Both runs off by their own error and by what moves from run to run."""
    rng, error = np.random.default_rng(0), 0.0033
    found: Counter[str] = Counter()
    for _ in range(repetitions):
        now, then = rng.normal([math.log(ratio), 0.0], math.hypot(error, TRANSFER))
        found[against_stored((now, error), (then, error), 0.05, ALPHA).verdict] += 1
    return found


def test_error_rates_against_figures() -> None:
    assert stored_rates(1.0, 1000) == {PASS: 1000}
    assert stored_rates(1.10, 1000) == {REGRESSION: 1000}
    at_the_limit = stored_rates(1.05, 4000)
    assert at_the_limit[REGRESSION] / 4000 == pytest.approx(ALPHA, abs=0.012)
    assert at_the_limit[PASS] / 4000 == pytest.approx(ALPHA, abs=0.012)


# real bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """bundle(name, size) -> a bundle of a tiny real network."""
    pytest.importorskip("onnxruntime")

    def make(name: str, size: int = 8, goldens: bool = True) -> Path:
        model, manifest = network(size), described(size)
        arrays = golden(model, manifest) if goldens else ({}, {})
        return write_bundle(tmp_path / f"{name}.edgecv", manifest, {"model.onnx": model}, *arrays)

    return make


def fight(
    candidate: Path, baseline: Path | None = None, seen: Told | None = None, **job: Any
) -> dict[str, Any]:
    full = {
        "candidate": str(candidate), "baseline": baseline and str(baseline), "wanted": None,
        "limit": 1.0, "alpha": ALPHA, "budget_s": 0.4, "threads": 1, "seed": 0, "starts": False,
        "burst_ms": 1.0, **job,
    }  # fmt: skip
    tell = seen.append if seen is not None else lambda _: None
    return child.call(
        "edgecv.benchmark.sequential_test", full, "duel", lambda *a: tell(a), ONE_THREAD
    )


CIRCUMSTANCES = {"machine", "sensors", "warnings", "seconds", "rounds", "sittings", "candidate"}
JUDGED = {"verdict", "ratio", "bounds", "floor", "reason", "hint"}


def test_a_bundle_is_not_twice_as_slow_as_itself(bundle: Callable[..., Path]) -> None:
    path, seen = bundle("a", 32), Told()
    found = fight(path, path, seen)
    assert found["verdict"] != REGRESSION
    assert set(found) == CIRCUMSTANCES | JUDGED | {
        "baseline", "interval", "cpu_time_ratio", "cpu_time_ratio_interval",
    }  # fmt: skip
    assert found["rounds"] >= LEAST_ROUNDS
    assert found["floor"] > 0
    low, high = found["interval"]
    assert 0 < low <= found["ratio"] <= high
    for side in ("baseline", "candidate"):
        assert found[side]["latency_ms"]["p50"] > 0
        assert "memory_mb" not in found[side]
    assert 1 <= len(seen) <= LOOKS
    assert "noise floor" in seen[0][2]


def test_400_times_the_pixels_are_a_regression(bundle: Callable[..., Path]) -> None:
    found = fight(bundle("b", 160), bundle("a", 8), budget_s=1.5, starts=True)
    assert found["verdict"] == REGRESSION
    assert found["ratio"] > 2.0
    assert found["cpu_time_ratio"] > 2.0
    assert found["candidate"]["latency_ms"]["p50"] > found["baseline"]["latency_ms"]["p50"]
    for side in ("baseline", "candidate"):
        assert found[side]["memory_mb"]["peak"] > 0
        assert found[side]["load_ms"] > 0


def test_the_other_way_round_it_passes(bundle: Callable[..., Path]) -> None:
    found = fight(bundle("a", 8), bundle("b", 160), budget_s=1.5)
    assert found["verdict"] == PASS
    assert found["ratio"] < 0.5


def test_without_a_baseline_it_is_measured_against_the_workload(
    bundle: Callable[..., Path],
) -> None:
    found = fight(bundle("a"), limit=None, starts=True)
    assert set(found) == CIRCUMSTANCES | {"calibrated", "calibration"}
    assert found["calibrated"]["error"] > 0
    assert found["calibration"]["version"] == VERSION
    assert found["calibration"]["numpy"] == np.__version__
    pace = found["candidate"]["latency_ms"]["p50"] / found["calibration"]["latency_ms"]
    assert 0.5 < math.exp(found["calibrated"]["log_ratio"]) / pace < 2.0
    assert found["candidate"]["memory_mb"]["peak"] > 0


def test_it_goes_on_until_the_error_is_what_was_wanted(bundle: Callable[..., Path]) -> None:
    rough = fight(bundle("a", 32), wanted=1.0, budget_s=5.0)
    assert rough["rounds"] == CALIBRATED_ROUNDS


def test_what_cannot_run_is_named(bundle: Callable[..., Path]) -> None:
    with pytest.raises(MissingExtraError, match=r"bare\.edgecv: has no golden inputs"):
        fight(bundle("bare", goldens=False), bundle("a"))
