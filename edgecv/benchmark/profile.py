"""Where a bundle's time goes: each layer's time, precision and bytes, from the engine's profiler.

    overhead = total_ms / call_ms

total_ms is the layers' sum, call_ms the median of whole calls without a profiler, in the same
process. Above 1 the profiler costs that much; below 1 calls hold what no layer was charged with:
copies in and out, and the part of a microsecond that engines cut off each layer.

    python -m edgecv.benchmark.profile JOB ANSWER    (edgecv.child; job: bundles, threads, runs)

Needs numpy and the engine alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.child import serve
from edgecv.errors import BundleError
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.bundle import opened
from edgecv.runtime.layers import WARMUP

RUNS = 20
HEAD = ("layer", "op", "precision", "ms", "share %", "KB")
RIGHT = (3, 4, 5)  # columns of numbers
_CALLS = 50  # whole calls on each side of the profile; small networks take microseconds


def profile(path: str | Path, threads: int = 1, runs: int = RUNS) -> dict[str, Any]:
    """Profile a bundle on one of its golden inputs.

    Returns plain JSON: {"bundle", "engine", "precision", "threads", "runs", "layers": [Layer as
    JSON, in order of execution], "total_ms", "call_ms", "overhead", "reason"}. reason says why
    times are missing, and total_ms and overhead are then None.
    Raises BundleError (damaged, no golden inputs), EdgecvError where it cannot run here.
    """
    contents = read_bundle(path)
    bundle = opened(contents, threads)
    try:
        if not contents.golden_inputs:
            hint = "make it again where it runs"
            raise BundleError(str(path), "has no golden inputs to run", hint)
        feeds = contents.golden_feed()
        session = bundle.session
        calls = _timed(lambda: session.run(feeds))
        found = session.profile(feeds, runs)
        calls += _timed(lambda: session.run(feeds))
    finally:
        bundle.close()
    call_ms = float(np.median(calls)) / 1e6
    times = [layer.time_ms for layer in found.layers if layer.time_ms is not None]
    total_ms = sum(times) if times else None
    return {
        "bundle": Path(path).name,
        "engine": bundle.manifest["engine"],
        "precision": bundle.manifest["precision"],
        "threads": threads,
        "runs": runs,
        "layers": [layer.to_json() for layer in found.layers],
        "total_ms": total_ms,
        "call_ms": call_ms,
        "overhead": None if total_ms is None else total_ms / call_ms,
        "reason": found.reason,
    }


def rows(data: Mapping[str, Any]) -> list[list[str]]:
    """A profile as rows under HEAD (`text_table`), a layer unknown by name as the engine calls it.

    A cell is empty where the engine does not tell.
    """
    total = data["total_ms"] or 0.0
    made = []
    for layer in data["layers"]:
        took, size = layer["time_ms"], layer["bytes"]
        made.append([
            layer["layer"] or layer["name"],
            layer["op"],
            layer["precision"],
            "" if took is None else f"{took:.4f}",
            "" if took is None or not total else f"{100 * took / total:.1f}",
            "" if size is None else f"{size / 1024:.1f}",
        ])  # fmt: skip
    return made


def summary(data: Mapping[str, Any]) -> str:
    """One line under the table: the layers' sum beside a whole call, or why there is none."""
    head = f"{data['bundle']}: {len(data['layers'])} layers on {data['engine']}, "
    if data["total_ms"] is None:
        return f"{head}a call {data['call_ms']:.3f} ms; no times: {data['reason']}"
    ratio = f"{data['overhead']:.2f} of a call without the profiler"
    return f"{head}{data['total_ms']:.3f} ms, {ratio} ({data['call_ms']:.3f} ms)"


def _timed(call: Callable[[], Any]) -> list[int]:
    """Nanoseconds of each of a series of calls, warmed up."""
    for _ in range(WARMUP):
        call()
    took = []
    for _ in range(_CALLS):
        begin = time.perf_counter_ns()
        call()
        took.append(time.perf_counter_ns() - begin)
    return took


def _profiles(bundles: Sequence[str], threads: int, runs: int) -> list[dict[str, Any]]:
    return [profile(path, threads, runs) for path in bundles]


def _work(job: dict[str, Any]) -> dict[str, Any]:
    return {"profiles": _profiles(job["bundles"], job.get("threads", 1), job.get("runs", RUNS))}


if __name__ == "__main__":
    serve(_work)
