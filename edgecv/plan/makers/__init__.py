"""How each kind of node is made, a file for each: inputs' folders in, a result folder out."""

from __future__ import annotations

from collections.abc import Callable

from edgecv.plan.makers import bundle, data, measure, model, stage
from edgecv.plan.makers.work import Work

MAKERS: dict[str, Callable[[Work], None]] = {
    "data": data.make,
    "model": model.make,
    "stage": stage.make,
    "bundle": bundle.make,
    "measure": measure.make,
}


def make(work: Work) -> None:
    """Make a node's result in work.out. Raises EdgecvError."""
    MAKERS[work.node.kind](work)
