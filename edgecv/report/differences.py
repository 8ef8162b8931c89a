"""How sure the figures of tasks are whose bundles keep what each image adds (mAP, mIoU).

Top-1 needs none of it: Wilson's interval follows from its figures, and its answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edgecv import tasks
from edgecv.errors import EdgecvError, one_line
from edgecv.report.folder import Row, Run
from edgecv.report.missing import Missing
from edgecv.report.rows import TOP1, metric_of
from edgecv.runtime.archive import read_bundle
from edgecv.tasks.base import Parts, Task

ALPHA = 0.025  # on either side of an interval of 95%


class Held(NamedTuple):
    """A bundle's task and what its score is made of."""

    task: Task
    parts: Parts


def add(run: Run, rows: Sequence[Row], missing: Missing) -> None:
    """Give rows value_interval, points_interval and p, where their bundles hold what it takes.

    p: the probability that nothing is lost (`edgecv.tasks.base.Difference`), one-sided
    """
    held = cache(_held)  # the float one is asked for by every row
    for row in rows:
        if row["value"] is None or metric_of(row) == TOP1:
            continue
        where = f"{row['step']} on {row['target']}"
        try:
            _add(run, row, rows, held)
        except (EdgecvError, ValueError, KeyError, IndexError) as e:
            missing.add("intervals", f"{where}: {one_line(e)}")


def _add(run: Run, row: Row, rows: Sequence[Row], held: Callable[..., Held | None]) -> None:
    node = run.bundle(row)
    own = held(run.bundle_file(node)) if node else None
    if own is None:
        return
    if found := own.task.interval(own.parts, ALPHA):
        row["value_interval"] = list(found)
    other = None if row["is_reference"] else held(float_bundle(run, row, rows))
    if other is not None:
        changed = other.task.difference(other.parts, own.parts, ALPHA)
        low, high = changed.bounds
        row["points_interval"], row["p"] = [-100 * high, -100 * low], changed.p


def float_bundle(run: Run, row: Row, rows: Sequence[Row]) -> Path | None:
    """The file of the bundle that a row is compared with: of its own target, else of another."""
    named = [r for r in rows if r["step"] == row["reference"]]
    named.sort(key=lambda r: r["target"] != row["target"])
    nodes = filter(None, map(run.bundle, named))
    return next(filter(None, map(run.bundle_file, nodes)), None)


def _held(path: Path | None) -> Held | None:
    if path is None:
        return None
    contents = read_bundle(path)
    task = tasks.of_manifest(contents.manifest)
    return Held(task, contents.parts) if task and contents.parts else None
