"""Interleaved measurement: bundles take turns in random order, so drift hits them alike.

A round gives every bundle one burst of calls; a ratio is the median over rounds of the two
bursts' medians. Per-call wall time gives p50/p90/p99; process CPU time per burst stands beside it,
since on a busy machine wall time also holds what others did. Needs numpy and the engine alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bench.machine import load_average, machine
from edgecv.child import serve
from edgecv.errors import BundleError
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.bundle import opened

# Wall time this far above CPU time per thread means that others had the processor.
BUSY = 1.25


@dataclass
class Series:
    """What was measured of one bundle. Times in nanoseconds."""

    path: Path
    call: Callable[[], Any]
    burst: int = 1
    wall: list[int] = field(default_factory=list)
    round_wall: list[float] = field(default_factory=list)
    round_cpu: list[float] = field(default_factory=list)
    warmup: int = 0


def measure(
    bundles: Sequence[Path],
    threads: int = 1,
    rounds: int = 40,
    burst_ms: float = 15.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure bundles against the first one.

    Returns {"machine", "threads", "rounds", "bundles": [...]}: per bundle latency_ms p50/p90/p99/
    mean, cpu_ms (process CPU time per call), latency_ratio and cpu_time_ratio against the first,
    with the spread of the ratio over rounds (quartiles).
    Raises EdgecvError where a bundle cannot run here.
    """
    series = [_prepare(path, threads, burst_ms) for path in bundles]
    order = list(range(len(series)))
    rng = random.Random(seed)
    before = load_average()
    for _ in range(rounds):
        rng.shuffle(order)
        for j in order:
            _burst(series[j])
    return {
        "schema": 1,
        "machine": machine(),
        "load_average": [before, load_average()],
        "threads": threads,
        "rounds": rounds,
        "bundles": [_summary(s, series[0], threads) for s in series],
    }


def _prepare(path: Path, threads: int, burst_ms: float) -> Series:
    contents = read_bundle(path)
    bundle = opened(contents, threads=threads)
    if not contents.golden_inputs:
        raise BundleError(str(path), "has no golden inputs to run", "make it again where it runs")
    feeds = {name: np.ascontiguousarray(a[:1]) for name, a in contents.golden_inputs.items()}
    run = bundle.session.run
    series = Series(path, lambda: run(feeds))
    steady_ns = _warm_up(series)
    series.burst = max(1, int(burst_ms * 1e6 / max(1.0, steady_ns)))
    return series


def _warm_up(series: Series, least_s: float = 0.1, most_s: float = 3.0) -> float:
    """Call until the median of the last 10 is within 5% of the 10 before; return it (ns)."""
    times: list[int] = []
    start = time.perf_counter()
    while True:
        begin = time.perf_counter_ns()
        series.call()
        times.append(time.perf_counter_ns() - begin)
        spent = time.perf_counter() - start
        if len(times) >= 20 and spent > least_s:
            last, before = np.median(times[-10:]), np.median(times[-20:-10])
            if abs(last - before) <= 0.05 * before or spent > most_s:
                break
    series.warmup = len(times)
    return float(np.median(times[-10:]))


def _burst(series: Series) -> None:
    call, clock = series.call, time.perf_counter_ns
    call()  # the caches hold the bundle before: let this one settle in
    walls = []
    cpu = time.process_time_ns()
    for _ in range(series.burst):
        begin = clock()
        call()
        walls.append(clock() - begin)
    cpu = time.process_time_ns() - cpu
    series.wall += walls
    series.round_wall.append(float(np.median(walls)))
    series.round_cpu.append(cpu / series.burst)


def _summary(series: Series, base: Series, threads: int) -> dict[str, Any]:
    wall = np.array(series.wall) / 1e6
    p50, p90, p99 = (float(v) for v in np.percentile(wall, (50, 90, 99)))
    ratios = np.array(series.round_wall) / np.array(base.round_wall)
    cpu_ratios = np.array(series.round_cpu) / np.array(base.round_cpu)
    cpu_ms = float(np.median(series.round_cpu)) / 1e6
    low, high = (float(v) for v in np.percentile(ratios, (25, 75)))
    return {
        "bundle": series.path.name,
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "mean": float(wall.mean())},
        "cpu_ms": cpu_ms,
        "latency_ratio": float(np.median(ratios)),
        "latency_ratio_quartiles": [low, high],
        "cpu_time_ratio": float(np.median(cpu_ratios)),
        "calls": len(wall),
        "warmup_calls": series.warmup,
        "size_bytes": series.path.stat().st_size,
        "busy": bool(wall.mean() > BUSY * cpu_ms and threads == 1),
    }


def _work(job: dict[str, Any]) -> dict[str, Any]:
    bundles = [Path(p) for p in job["bundles"]]
    return measure(bundles, job["threads"], job["rounds"], job["burst_ms"])


if __name__ == "__main__":
    serve(_work)
