"""The bundle beside another of the same network: slower than what it ought to beat, and where.

ratio = median over rounds of t(this) / t(other)      in turns
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecv.backends import run_module
from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import TURNS, Finding, named
from edgecv.diagnosis.why.view import View
from edgecv.errors import BundleError, RecipeError
from edgecv.measuring.clock import Saving, Trial
from edgecv.runtime.archive import Contents
from edgecv.runtime.layers import WARMUP
from edgecv.runtime.spec import Layer

RUNS = 20
SHARE = 0.25


@dataclass(frozen=True)
class Rival:
    """The other bundle. saved: what it takes less than this one, negative where it takes more;
    layers_ms: its profile by layer, rows: by kernel; view: its graph."""

    name: str
    precision: str
    engine: str
    saved: Saving
    layers_ms: dict[str, float]
    rows: tuple[Layer, ...] = ()
    view: View | None = None

    def to_json(self) -> dict[str, Any]:
        ratio = self.saved.shipped_ms / self.saved.mended_ms
        return {
            "bundle": self.name, "precision": self.precision, "engine": self.engine,
            "call_ms": self.saved.mended_ms, "latency_ratio": ratio,
        }  # fmt: skip


def against(case: Case, contents: Contents, view: View | None) -> Rival | None:
    """Measure the other in turns with this one; None when nothing runs or the budget is spent.
    view: the other's graph

    Raises RecipeError: it takes other images. BundleError: it has no golden inputs.
    """
    where, (mine, other) = str(contents.path), (case.manifest, contents.manifest)
    sizes = [m["input"]["preprocess"]["size"] for m in (mine, other)]
    if list(sizes[0]) != list(sizes[1]):
        what = f"takes images of {sizes[1][0]}x{sizes[1][1]}, not {sizes[0][0]}x{sizes[0][1]}"
        raise RecipeError("--against", f"{where} {what}", "give a bundle of the same network")
    if not contents.golden_inputs:
        raise BundleError(where, "has no golden inputs to run", "make it again where it runs")
    if case.clock is None or case.view is None:
        return None
    engine = str(other["engine"])
    feeds = contents.golden_feed()
    trials = [
        case.trial("this", case.view.files),
        Trial("other", engine, contents.files, feeds, case.threads),
    ]
    rounds = case.clock.rounds(trials, SHARE)
    if rounds is None:
        return None
    files = view.files if view is not None else contents.files
    session = run_module(engine).Session(files, case.threads)
    try:
        rows = session.profile(feeds, WARMUP + RUNS).layers
    finally:
        session.close()
    layers: dict[str, float] = {}
    for row in rows:
        if row.layer:
            layers[row.layer] = layers.get(row.layer, 0.0) + (row.time_ms or 0.0)
    saved = rounds.saving(rounds.ms[:, 0], rounds.ms[:, 1])
    said = contents.path.name, str(other["precision"]), engine
    return Rival(*said, saved, layers, tuple(rows), view)


def check(case: Case, rival: Rival | None) -> Iterator[Finding]:
    """Slower than the other, with the layers that lose the most."""
    if rival is None or rival.saved.low <= 0.0:
        return
    mine: dict[str, float] = {}
    for row in case.layers:
        if row.layer in rival.layers_ms:
            mine[row.layer] = mine.get(row.layer, 0.0) + (row.time_ms or 0.0)
    lost = {name: ms - rival.layers_ms[name] for name, ms in mine.items()}
    worst = sorted((n for n in lost if lost[n] > 0.0), key=lambda n: -lost[n])
    ratio = rival.saved.shipped_ms / rival.saved.mended_ms
    most = f"; most is lost in {named(f'{n} (+{lost[n]:.3f} ms)' for n in worst)}" if worst else ""
    yield Finding(
        "slower",
        f"{case.precision} on {case.engine} takes {ratio:.2f} times as long as {rival.name} "
        f"({rival.precision} on {rival.engine}, {rival.saved.mended_ms:.3f} ms){most}",
        tuple(worst),
        rival.saved.ms,
        f"the changes named with the other causes; until then ship {rival.name}",
        TURNS,
        (rival.saved.low, rival.saved.high),
    )
