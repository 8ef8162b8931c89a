"""What a layer takes on an engine, beside the rows of layers that could stand for it.

    r = median over interleaved rounds of  (t_row − t_empty) / (t_whole − t_empty)

Each row is a network of its own of noise (`single_layer_graphs.py`), and all of one layer take
turns on one clock. t_empty is a network that computes next to nothing: what a call costs is paid
once by a whole network, and not by each of its layers.

Run by `edgecv.child`: `python -m edgecv.measuring.row_times JOB ANSWER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgecv import child
from edgecv.benchmark.statistics import interval
from edgecv.child import serve
from edgecv.errors import EdgecvError
from edgecv.measuring.clock import Clock, Trial
from edgecv.measuring.jobs import RowsJob, Times
from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import row

EMPTY = Product("empty", "dense", (1, 1))
LEAST = 0.02  # of a call, that a layer takes at the least: two clocks' difference may be below 0


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A RowsJob as JSON. Graphs are made first; each layer may take an even share of the budget."""
    asked, made, found = RowsJob.from_json(job), {}, {}

    def trial(products: Sequence[Product]) -> Trial:
        return row(products, asked.engine, asked.integer, asked.threads)

    for name, options in asked.layers.items():
        try:
            made[name] = [trial(parts) for parts in ((EMPTY,), *options)]
        except EdgecvError as e:
            found[name] = asdict(Times(refusal=e.what))
    clock = Clock(asked.budget_s, asked.seed)
    for i, (name, trials) in enumerate(made.items()):
        child.report(i, len(made), name)
        found[name] = asdict(_measured(trials, clock, 1.0 / (len(made) - i)))
    return {"layers": found}


def _measured(trials: list[Trial], clock: Clock, share: float) -> Times:
    try:
        rounds = clock.rounds(trials, share)
    except EdgecvError as e:
        return Times(refusal=e.what)
    if rounds is None:
        return Times(refusal="the budget for measuring was spent")
    own = np.maximum(rounds.ms[:, 1:] - rounds.ms[:, :1], LEAST * rounds.ms[:, 1:])
    logs = np.log(own)
    found = [interval(logs[:, i] - logs[:, 0], sittings=rounds.sittings)
             for i in range(1, own.shape[1])]  # fmt: skip
    return Times(
        float(np.median(own[:, 0])),
        (1.0, *(float(f.ratio) for f in found)),
        (1.0, *(float(f.high) for f in found)),
    )


if __name__ == "__main__":
    serve(work)
