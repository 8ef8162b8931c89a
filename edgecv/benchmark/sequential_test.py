"""Is the candidate slower than the limit allows? Measured until known, or the budget is spent.

    slowdown   r = exp(median_i log(candidate_i / baseline_i)) - 1,  round by round
    regression when the lower bound of r is above the limit and above the floor
    pass       when the upper bound of r is below the limit, and the limit above the floor
    floor      the bound of |log(baseline'_i / baseline_i)|: the baseline opened twice (A/A)

Bounds are one-sided, at ALPHA shared between the looks at the data (Bonferroni) and between the
bundles that are judged together. A limit below the floor is refused: this machine, now, could not
tell a slowdown of that size from nothing. One that is surely above the floor it can (`judge`).

Against a stored baseline the calibration workload stands in for it:

    log r = (log(candidate / calibration) now) - (log(baseline / calibration) then)

whose error adds those of both runs and TRANSFER, which is what such ratios were seen to move by
from one run to the next on one machine (benchmarks/gate_error_rates.py); it is looked at once.

Run by `edgecv.child`: `python -m edgecv.benchmark.sequential_test JOB ANSWER`.
Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from edgecv.benchmark import sensors
from edgecv.benchmark.bundle_runner import BundleSubject
from edgecv.benchmark.calibration import VERSION, Calibration
from edgecv.benchmark.machine import machine
from edgecv.benchmark.measure import timings
from edgecv.benchmark.sampling import BURST_MS, DRIFT, SITTING_ROUNDS, Sampler
from edgecv.benchmark.startup import cold
from edgecv.benchmark.statistics import LEAST_SITTINGS, normal_interval
from edgecv.child import report, serve

ALPHA = 0.05
LOOKS = 6
ROUNDS = 36  # before the first look
LEAST_ROUNDS = 8  # with fewer, the bounds of a median are its extremes
TRANSFER = 0.003
CALIBRATED_ROUNDS = 20 * SITTING_ROUNDS
CALIBRATED_ERROR = 0.0033
BUDGET_S = 30.0

PASS, REGRESSION, INCONCLUSIVE = "pass", "regression", "inconclusive"
Tell = Callable[..., None]


@dataclass(frozen=True)
class Verdict:
    """How the clock judged.

    ratio:      candidate / baseline
    bounds:     one-sided bounds of it, low and high
    floor:      noise floor, relative (0.01 is 1%)
    reason, hint: of "inconclusive": why, and what would settle it
    """

    verdict: str
    ratio: float
    bounds: tuple[float, float]
    floor: float
    reason: str = ""
    hint: str = ""


def judge(bounds: tuple[float, float], floor: float, limit: float) -> str:
    """The rule. bounds: of the ratio; floor: of noise; limit: allowed slowdown; both relative.

    Two equal networks (A/A) are no regression where the limit is below the floor either. The lower
    bound alone exceeds a limit that was kept in ALPHA of cases at the most, whatever the floor is.
    It must exceed the floor too, the upper bound of a change that is none in the same rounds: noise
    that lifts the one widens the other; and where the budget cannot bring the floor below the limit
    `live` looks once, at a share 1 / LOOKS of ALPHA. Between limit and floor lies what this machine
    cannot tell from nothing.
    """
    if bounds[0] > 1.0 + max(limit, floor):
        return REGRESSION
    return PASS if floor < limit and bounds[1] < 1.0 + limit else INCONCLUSIVE


def live(sampler: Sampler, limit: float, alpha: float, budget_s: float, tell: Tell) -> Verdict:
    """Judge subjects 0 (baseline), 1 (the same again) and 2 (candidate) of a sampler."""
    start = time.perf_counter()
    sampler.sample(LEAST_ROUNDS)
    pace = (time.perf_counter() - start) / LEAST_ROUNDS
    most = max(LEAST_ROUNDS, int(budget_s / pace))
    dues = looks(most)
    for due in dues:
        sampler.sample(max(0, due - sampler.rounds))
        spent = time.perf_counter() - start
        # With few sittings one unlucky place in memory would decide; and the first rounds, which
        # load the engine, may have foretold a slower pace than there was.
        while (sampler.sittings < LEAST_SITTINGS or due == dues[-1]) and spent < budget_s:
            sampler.sample(1)
            spent = time.perf_counter() - start
        verdict = _look(sampler, limit, 1.0 - 2.0 * alpha / LOOKS)
        note = f"{verdict.ratio - 1:+.1%}, noise floor {verdict.floor:.1%}"
        tell(min(spent, budget_s), budget_s, note)
        if verdict.verdict != INCONCLUSIVE or spent >= budget_s:
            break
        # It narrows with the root of the rounds: what the budget cannot reach is not waited for.
        if verdict.floor * math.sqrt(spent / budget_s) > 1.5 * limit:
            break
    if verdict.verdict != INCONCLUSIVE:
        return verdict
    return _unsettled(verdict, limit, time.perf_counter() - start, 1.0 - alpha / LOOKS)


def looks(most: int) -> list[int]:
    """Rounds after which the data are looked at: LOOKS times at the most, ever more apart."""
    first = min(ROUNDS, most)
    growth = max(1.15, (most / first) ** (1.0 / (LOOKS - 1)))
    return sorted({min(most, round(first * growth**k)) for k in range(LOOKS)})


def _look(sampler: Sampler, limit: float, level: float) -> Verdict:
    found, same = sampler.ratio(2, 0, level), sampler.ratio(1, 0, level)
    floor = max(same.high, 1.0 / same.low) - 1.0
    bounds = (found.low, found.high)
    return Verdict(judge(bounds, floor, limit), found.ratio, bounds, floor)


def _unsettled(v: Verdict, limit: float, spent: float, level: float) -> Verdict:
    """The verdict with its reason and what would settle it. level: one-sided, of the bounds."""
    if v.floor >= limit:
        reason = (
            f"a limit of {limit:.1%} is below this machine's noise floor of {v.floor:.1%} "
            f"(the baseline against itself, {spent:.0f} s)"
        )
        above = math.ceil(200 * v.floor) / 2
        hint = f"--max-slowdown {above:g}%, a longer --budget, or a calmer machine"
        return Verdict(INCONCLUSIVE, v.ratio, v.bounds, v.floor, reason, hint)
    low, high = v.bounds
    reason = _around(low, high, limit)
    # Rounds narrow what is left of the bounds without DRIFT, which stays.
    distance, half = abs(math.log(v.ratio / (1.0 + limit))), math.log(high / low) / 2.0
    stays = NormalDist().inv_cdf(level) * DRIFT
    longer = math.inf
    if distance > 1.1 * stays:
        longer = spent * (half**2 - stays**2) / (distance**2 - stays**2)
    hint = "too close to the limit to tell: another limit"
    if longer < 3600:
        hint = f"--budget {_rounded(longer)}s, or a calmer machine"
    return Verdict(INCONCLUSIVE, v.ratio, v.bounds, v.floor, reason, hint)


def _around(low: float, high: float, limit: float) -> str:
    between = f"between {low - 1:+.1%} and {high - 1:+.1%}"
    return f"the slowdown is {between}, around the limit of {limit:.1%}"


def _rounded(seconds: float) -> int:
    return int(math.ceil(1.2 * seconds / 30.0) * 30)


def calibrated(
    sampler: Sampler, subject: int, budget_s: float, wanted: float, tell: Tell
) -> tuple[float, float]:
    """(log ratio to the calibration workload, its error) of a subject; subject 0 is the workload.

    Goes on until the error is `wanted`, and for CALIBRATED_ROUNDS at least, within the budget.
    """
    start = time.perf_counter()
    while True:
        sampler.sample(5 * SITTING_ROUNDS)
        error, spent = sampler.error(subject), time.perf_counter() - start
        tell(min(spent, budget_s), budget_s, f"±{2 * error:.1%} against the calibration workload")
        enough = sampler.rounds >= CALIBRATED_ROUNDS and error <= wanted
        if enough or spent >= budget_s:
            return float(np.median(sampler.logs(subject))), error


def against_stored(
    now: tuple[float, float], then: tuple[float, float], limit: float, alpha: float
) -> Verdict:
    """Judge two ratios to the calibration workload, each (log ratio, error)."""
    error = math.sqrt(now[1] ** 2 + then[1] ** 2 + 2.0 * TRANSFER**2)
    found = normal_interval(now[0] - then[0], error, 1.0 - 2.0 * alpha)
    floor = math.exp(NormalDist().inv_cdf(1.0 - alpha) * error) - 1.0
    bounds = (found.low, found.high)
    verdict = Verdict(judge(bounds, floor, limit), found.ratio, bounds, floor)
    if verdict.verdict != INCONCLUSIVE:
        return verdict
    if floor >= limit:
        reason = f"a limit of {limit:.1%} is below the noise floor of {floor:.1%} between two runs"
    else:
        low, high = bounds
        reason = _around(low, high, limit)
    hint = "the baseline's own bundle instead of its figures settles it: both are then measured now"
    return Verdict(INCONCLUSIVE, found.ratio, bounds, floor, reason, hint)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """The child's side.

    job: candidate, baseline (paths; without a baseline the candidate is measured beside the
    calibration workload, until the error is `wanted`), limit (relative), alpha, budget_s, threads,
    seed, starts
    """
    paths = [Path(job[k]) if job.get(k) else None for k in ("baseline", "candidate")]
    began = time.perf_counter()
    starts = [cold(p, job["threads"]) if p and job["starts"] else {} for p in paths]
    before = sensors.read()
    baseline, candidate = paths
    assert candidate is not None
    answer = _live(job, baseline, candidate) if baseline else _alone(job, candidate)
    after = sensors.read()
    for name, facts in zip(("baseline", "candidate"), starts, strict=True):
        if name in answer:
            answer[name] |= facts
    return {
        **answer,
        "machine": machine(),
        "sensors": {"before": before, "after": after},
        "warnings": sensors.changes(before, after),
        "seconds": round(time.perf_counter() - began, 2),
    }


def _live(job: dict[str, Any], baseline: Path, candidate: Path) -> dict[str, Any]:
    threads = job["threads"]
    subjects = [BundleSubject(p, threads) for p in (baseline, baseline, candidate)]
    sampler = Sampler(subjects, job.get("burst_ms", BURST_MS), job["seed"])
    try:
        verdict = live(sampler, job["limit"], job["alpha"], job["budget_s"], report)
    finally:
        sampler.close()
    shown, cpu = sampler.ratio(2, 0), sampler.ratio(2, 0, cpu=True)
    return {
        **asdict(verdict),
        "interval": shown.to_json(),
        "cpu_time_ratio": cpu.ratio,
        "cpu_time_ratio_interval": cpu.to_json(),
        "rounds": sampler.rounds,
        "sittings": sampler.sittings,
        "baseline": timings(sampler.series[0], threads=threads),
        "candidate": timings(sampler.series[2], threads=threads),
    }


def _alone(job: dict[str, Any], candidate: Path) -> dict[str, Any]:
    subject = BundleSubject(candidate, job["threads"])
    sampler = Sampler([Calibration(), subject], job.get("burst_ms", BURST_MS), job["seed"])
    wanted = max(CALIBRATED_ERROR, job.get("wanted") or 0.0)
    try:
        log_ratio, error = calibrated(sampler, 1, job["budget_s"], wanted, report)
    finally:
        sampler.close()
    return {
        "calibrated": {"log_ratio": log_ratio, "error": error},
        "calibration": {
            "version": VERSION,
            "numpy": np.__version__,
            "latency_ms": float(np.median(sampler.series[0].round_wall)) / 1e6,
        },
        "rounds": sampler.rounds,
        "sittings": sampler.sittings,
        "candidate": timings(sampler.series[1], threads=job["threads"]),
    }


if __name__ == "__main__":
    serve(work)
