"""`edgecv bench`: bundles side by side, with ratios that say how sure they are.

    latency_ratio = median over rounds of (this bundle's median call / the reference's)

with its 95% bootstrap interval; rounds go on until every interval is narrow enough or the budget is
spent. Wall time and process CPU time stand side by side: on a busy machine wall time also holds
what others did. Beside the bundles runs a fixed workload (`edgecv.benchmark.calibration`).

Run by `edgecv.child`: `python -m edgecv.benchmark.measure JOB ANSWER`.
Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.benchmark import sensors
from edgecv.benchmark.bundle_runner import BundleSubject
from edgecv.benchmark.calibration import VERSION, Calibration
from edgecv.benchmark.machine import machine
from edgecv.benchmark.sampling import BURST_MS, Sampler, Series
from edgecv.benchmark.startup import cold
from edgecv.child import report, serve

SCHEMA = 2
BUDGET_S = 30.0
PRECISION = 0.01
ROUNDS = 40
GROWTH = 1.25  # rounds between two looks at the intervals, as a share of those made
# Wall time this far above CPU time per thread means that others had the processor.
BUSY = 1.25
FIRST_ROUNDS = 8  # whatever the budget


@dataclass(frozen=True)
class Plan:
    """How to measure.

    threads:   of each engine
    scenario:  "single-stream" (one call after the other) or "offline" (`threads` sessions of one
               thread each, all working: throughput)
    batch:     runs in a call, of one image each where the network takes no batch of its own
    rounds:    at least so many
    precision: half-width of the intervals to reach, 0.01 is 1%
    budget_s:  seconds after which it ends all the same
    burst_ms:  one bundle's turn in a round
    """

    threads: int = 1
    scenario: str = "single-stream"
    batch: int = 1
    rounds: int = ROUNDS
    precision: float = PRECISION
    budget_s: float = BUDGET_S
    burst_ms: float = BURST_MS
    seed: int = 0


def measure(
    bundles: Sequence[Path],
    plan: Plan | None = None,
    reference: int = 0,
    starts: bool = True,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Measure bundles against the one at index `reference`.

    starts: also start each bundle in a process of its own (load, first call, memory)
    Returns the JSON that docs/bench.md describes. Raises EdgecvError where a bundle cannot run.
    """
    plan, tell = plan or Plan(), progress or (lambda *_: None)
    began = time.perf_counter()
    subjects = [BundleSubject(p, plan.threads, plan.scenario, plan.batch) for p in bundles]
    cold_facts = []
    for i, path in enumerate(bundles):
        tell(0.1 * i, len(bundles), f"starting {path.name}")
        cold_facts.append(cold(path, plan.threads) if starts else {})
    before = sensors.read()
    sampler = Sampler([*subjects, Calibration()], plan.burst_ms, plan.seed)
    try:
        reached = _until_narrow(sampler, plan, reference, tell)
    finally:
        sampler.close()
    after = sensors.read()
    rows = [
        {"bundle": name, **_summary(sampler, i, reference, plan, subject), **facts}
        for i, (name, subject, facts) in enumerate(
            zip(shortest(bundles), subjects, cold_facts, strict=True)
        )
    ]
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "sensors": {"before": before, "after": after},
        "threads": plan.threads,
        "scenario": plan.scenario,
        "batch": plan.batch,
        "seed": plan.seed,
        "rounds": sampler.rounds,
        "sittings": sampler.sittings,
        "seconds": round(time.perf_counter() - began, 2),
        "precision": plan.precision,
        "reached": reached,
        "calibration": {
            "version": VERSION,
            "numpy": np.__version__,
            "latency_ms": float(np.median(sampler.series[-1].round_wall)) / 1e6,
        },
        "bundles": rows,
        "warnings": [
            *_elsewhere(subjects),
            *_unequal(subjects),
            *sensors.changes(before, after),
            *_warnings(rows, plan, reached),
        ],
    }


def shortest(paths: Sequence[Path]) -> list[str]:
    """File names, with as many of their folders as it takes to tell them apart."""
    parts = [p.parts for p in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [p.name for p in paths]


def _until_narrow(sampler: Sampler, plan: Plan, reference: int, tell: Callable[..., None]) -> bool:
    """Sample until the intervals are narrow enough or the budget is spent; whether they are."""
    start, due = time.perf_counter(), plan.rounds
    while True:
        sampler.sample(min(due - sampler.rounds, _affordable(sampler, start, plan)))
        width = _widest(sampler, reference)
        spent = time.perf_counter() - start
        tell(min(spent, plan.budget_s), plan.budget_s, f"{sampler.rounds} rounds, ±{width:.1%}")
        narrow = width <= plan.precision
        if spent >= plan.budget_s or (narrow and sampler.rounds >= plan.rounds):
            return narrow
        due = max(plan.rounds, int(sampler.rounds * GROWTH) + 1)


def _affordable(sampler: Sampler, start: float, plan: Plan) -> int:
    """Rounds that fit into what is left of the budget; at least one."""
    if not sampler.rounds:
        return min(plan.rounds, FIRST_ROUNDS)
    spent = time.perf_counter() - start
    return max(1, int((plan.budget_s - spent) / (spent / sampler.rounds)))


def _widest(sampler: Sampler, reference: int) -> float:
    """Half-width of the least certain ratio; of one bundle, to the calibration workload."""
    bundles = range(len(sampler.series) - 1)
    others = [i for i in bundles if i != reference]
    if others:
        return max(sampler.ratio(i, reference).half_width for i in others)
    return sampler.ratio(reference, len(sampler.series) - 1).half_width


def _summary(
    sampler: Sampler, index: int, reference: int, plan: Plan, subject: BundleSubject
) -> dict[str, Any]:
    series = sampler.series[index]
    wall, cpu = sampler.ratio(index, reference), sampler.ratio(index, reference, cpu=True)
    workload = len(sampler.series) - 1
    size = int(sum(map(len, subject.contents.files.values())))
    return {
        **{k: subject.contents.manifest[k] for k in ("target", "engine", "precision")},
        **timings(series, plan.batch * subject.images, plan.threads),
        "latency_ratio": wall.ratio,
        "latency_ratio_interval": wall.to_json(),
        "cpu_time_ratio": cpu.ratio,
        "cpu_time_ratio_interval": cpu.to_json(),
        "calibrated": {
            "log_ratio": float(np.median(sampler.logs(index, workload))),
            "error": sampler.error(index, workload),
        },
        "size_bytes": size,
        "download_bytes": subject.path.stat().st_size,
    }


def timings(series: Series, batch: int = 1, threads: int = 1) -> dict[str, Any]:
    """Latency of a call in ms, its CPU time, throughput in images a second, and how they came."""
    wall = np.array(series.wall, np.float64) / 1e6
    p50, p90, p99 = (float(v) for v in np.percentile(wall, (50, 90, 99)))
    cpu_ms = float(np.median(series.round_cpu)) / 1e6
    energy = float(np.median(series.round_energy)) / 1e3 if series.round_energy else None
    return {
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "mean": float(wall.mean())},
        "cpu_ms": cpu_ms,
        "throughput": 1e3 * batch / p50,
        "energy_mj": energy,
        "calls": len(wall),
        "warmup_calls": series.warmup,
        # Several threads wait for one another: their CPU time says nothing of other processes.
        "busy": bool(wall.mean() > BUSY * (cpu_ms if threads == 1 else p50)),
    }


def _unequal(subjects: Sequence[BundleSubject]) -> list[str]:
    """Bundles whose calls do not hold the same work."""
    if len({s.images for s in subjects}) < 2:
        return []
    held = ", ".join(f"{s.path.name} {s.images}" for s in subjects)
    return [f"images in a run differ ({held}): latencies and ratios are of calls, not of images"]


def _elsewhere(subjects: Sequence[BundleSubject]) -> list[str]:
    """Bundles whose times here say nothing of their device."""
    return [
        f"{s.path.name} is not compiled for {s.contents.manifest['target']}: these are times of "
        "its network on this processor"
        for s in subjects
        if s.contents.manifest.get("compiled") is False
    ]


def _warnings(rows: Sequence[dict[str, Any]], plan: Plan, reached: bool) -> list[str]:
    found = []
    if any(row["busy"] for row in rows):
        found.append(
            "the machine is busy: wall time was well above CPU time; trust the ratios, not the "
            "milliseconds"
        )
    if plan.threads > (cores := os.cpu_count() or plan.threads):
        found.append(f"{plan.threads} threads on {cores} cores")
    for row in rows:
        (low, high), (least, most) = row["latency_ratio_interval"], row["cpu_time_ratio_interval"]
        if plan.threads == 1 and (low > 1.02 * most or high < 0.98 * least):
            found.append(
                f"{row['bundle']}: {row['latency_ratio']:.2f} by the clock, "
                f"{row['cpu_time_ratio']:.2f} by CPU time: something else took part"
            )
    if not reached:
        found.append(
            f"the budget of {plan.budget_s:g} s was spent before "
            f"{'the intervals were' if len(rows) > 1 else 'the calibrated latency was'} within "
            f"{plan.precision:.1%}"
        )
    return found


def work(job: dict[str, Any]) -> dict[str, Any]:
    """The child's side. job: {"bundles": [path, ...], "reference", "starts", "plan": {...}}."""
    return measure(
        [Path(p) for p in job["bundles"]],
        Plan(**job["plan"]),
        job.get("reference", 0),
        job.get("starts", True),
        report,
    )


if __name__ == "__main__":
    serve(work)
