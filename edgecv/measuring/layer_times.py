"""Milliseconds of single layers on an engine, in a process of its own, each beside a first.

    t_i = t_first · median over rounds of (layer i / first)

Lines are measured in turns within themselves, and the firsts of all lines with each other: what
others do to the machine meanwhile hits both sides of every ratio. Of one thread the CPU's time is
taken, which others cannot lengthen. What calling an engine costs at all (a dense layer of one
weight) is subtracted.

Run by `edgecv.child`: `python -m edgecv.measuring.layer_times JOB ANSWER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.benchmark.sampling import Sampler
from edgecv.child import report, serve
from edgecv.measuring.clock import Trial
from edgecv.measuring.jobs import LayersJob
from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import trial

ROUNDS = 12
BURST_MS = 2.0
NOTHING = Product("nothing", "dense", (1, 1))
LEAST = 0.05  # of what was measured, at least, is the layer's own


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A LayersJob as JSON. {"lines": [[ms, ...], ...]}, in the same order; what calling costs is
    taken off."""
    asked = LayersJob.from_json(job)
    engine, threads, lines = asked.engine, asked.threads, asked.lines

    def made(layer: Product) -> Trial:
        return trial(layer, engine, asked.integer, threads)

    firsts = _times([made(NOTHING), *(made(line[0]) for line in lines)], threads, asked.seed)
    call, found = firsts[0], []
    for i, line in enumerate(lines):
        own = np.array([firsts[i + 1]])
        if len(line) > 1:
            times = _times([made(p) for p in line], threads, asked.seed)
            own = firsts[i + 1] * times / times[0]
        found.append([float(v) for v in np.maximum(own - call, LEAST * own)])
        report(i + 1, len(lines), f"layers on {engine}")
    return {"lines": found, "call_ms": float(call)}


def _times(trials: Sequence[Trial], threads: int, seed: int) -> np.ndarray:
    """Milliseconds of a call of each, taking turns."""
    sampler = Sampler(trials, BURST_MS, seed)
    try:
        sampler.sample(ROUNDS)
    finally:
        sampler.close()
    rounds = [s.round_cpu if threads == 1 else s.round_wall for s in sampler.series]
    return np.median(np.array(rounds), axis=1) / 1e6


if __name__ == "__main__":
    serve(work)
