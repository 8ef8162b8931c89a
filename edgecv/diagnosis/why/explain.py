"""Why is this bundle not faster, or not right? All checks over one bundle.

    open ─▶ read the graph ─▶ engine's profile ─▶ suspects ─▶ mended graphs in turns ─▶ findings

Run by `edgecv.child`: `python -m edgecv.diagnosis.why.explain JOB ANSWER`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecv.backends import facts, run_module
from edgecv.benchmark.machine import machine
from edgecv.benchmark.sampling import warm_up
from edgecv.child import report, serve
from edgecv.diagnosis.why import against as rivals
from edgecv.diagnosis.why import (
    alignment,
    data_movement,
    epilogues,
    fallbacks,
    numerics,
    one_bit,
    precision,
)
from edgecv.diagnosis.why import roofline as bounds
from edgecv.diagnosis.why.case import X86, Case
from edgecv.diagnosis.why.findings import STATIC, Finding, sorted_out
from edgecv.diagnosis.why.view import View
from edgecv.errors import MissingExtraError, NoCudaDevice, TargetError
from edgecv.measuring.clock import Clock
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.verify import verify

SCHEMA = 1
BUDGET_S = 20.0
RUNS = 20
TOP = 5
CHECKS = (precision, data_movement, numerics, fallbacks, one_bit)
Tell = Callable[..., None]


def explain(
    path: Path, against: Path | None = None, threads: int = 1,
    budget_s: float = BUDGET_S, tell: Tell = lambda *_: None,
) -> dict[str, Any]:  # fmt: skip
    """The report on a bundle as plain JSON (docs/why.md).

    against: another bundle of the same network, fp32 as a rule, that it ought to beat
    Raises BundleError (damaged), RecipeError (against is of another network), EdgecvError.
    """
    began = time.monotonic()
    contents = read_bundle(path)
    other = read_bundle(against) if against else None
    tell(0.0, 1.0, "profile")
    case, reason = opened(contents, threads, budget_s)
    rival = rivals.against(case, other, _view(other)) if other else None
    found = [*rivals.check(case, rival), *epilogues.check(case, rival)]
    found += _answers(case, path)
    for i, module in enumerate(CHECKS, 1):
        tell(i, len(CHECKS) + 2, module.__name__.rpartition(".")[2])
        found += module.check(case)
    limits = bounds.measured(case)
    found += bounds.check(case, limits)
    tell(len(CHECKS) + 1, len(CHECKS) + 2, "alignment")
    found += alignment.check(case)  # last: it measures for as long as the budget lets it
    causes, rest = sorted_out(found, case.call_ms)
    return {
        "schema": SCHEMA,
        "bundle": path.name,
        "name": case.manifest["name"],
        "engine": case.engine,
        "target": case.manifest["target"],
        "precision": case.precision,
        "threads": threads,
        "machine": dict(case.machine),
        "providers": list(case.providers),
        "executed": _executed(case),
        "call_ms": case.call_ms,
        "layers_ms": sum(r.time_ms or 0.0 for r in case.layers) if case.layers else None,
        "not_run": reason,
        "notes": list(case.manifest.get("notes") or ()),
        "against": rival.to_json() if rival else None,
        "readable": case.view is not None,
        "findings": [f.to_json() for f in causes],
        "noted": [f.to_json() for f in rest],
        "layers": _layers(case, limits),
        "top": _top(case, limits),
        "budget_spent": case.clock is not None and case.clock.spent,
        "seconds": round(time.monotonic() - began, 2),
    }


def opened(contents: Contents, threads: int, budget_s: float) -> tuple[Case, str]:
    """The case, and why it does not run here ("" when it does)."""
    manifest, here = contents.manifest, machine()
    engine = str(manifest["engine"])
    view = _view(contents)
    known: dict[str, Any] = {
        "manifest": manifest, "view": view, "target": _target(str(manifest["target"]), engine),
        "machine": here, "threads": threads,
    }  # fmt: skip
    if reason := _not_run(contents):
        return Case(**known), reason
    try:
        session: Any = run_module(engine).Session(view.files if view else contents.files, threads)
    except (NoCudaDevice, MissingExtraError) as e:
        if view is None or not facts(engine).untimed:
            raise
        return Case(**known), e.what
    feeds = contents.golden_feed()
    try:
        _, before_ns = warm_up(lambda: session.run(feeds))
        profile = session.profile(feeds, RUNS)
        _, after_ns = warm_up(lambda: session.run(feeds))
        providers = tuple(getattr(getattr(session, "_session", None), "get_providers", tuple)())
    finally:
        session.close()
    case = Case(
        **known, layers=profile.layers, call_ms=min(before_ns, after_ns) / 1e6, feeds=feeds,
        clock=Clock(budget_s), providers=providers,
    )  # fmt: skip
    return case, profile.reason


def _view(contents: Contents) -> View | None:
    return viewed(contents, str(machine()["architecture"]))


def viewed(contents: Contents, architecture: str) -> View | None:
    """The graph inside; None where the file is an engine that nothing here reads."""
    (name, content), *_ = contents.files.items()
    if name.endswith(".onnx"):
        from edgecv.diagnosis.why.onnx_view import OnnxView

        return OnnxView(name, content, architecture.lower() in X86)
    if name.endswith(".xml"):
        from edgecv.diagnosis.why.ir_view import IrView

        return IrView(contents.files)
    if name.endswith(".tflite"):
        from edgecv.diagnosis.why.tflite_view import TfliteView

        return TfliteView(name, content)
    return None


def _not_run(contents: Contents) -> str:
    said = facts(str(contents.manifest["engine"]))
    if said.untimed and (said.sealed or contents.manifest.get("compiled") is False):
        return f"{said.untimed} is not run here: its device times it"
    if not contents.golden_inputs:
        return "it has no golden inputs to run: it was made where its engine does not run"
    return ""


def _target(name: str, engine: str) -> Any:
    """The profile that it was made for, or the engine's own where that one is not here."""
    try:
        from edgecv.target import load
    except ImportError:  # a device: pydantic is of [compress]
        return None
    for one in (name, facts(engine).profile or engine):
        with contextlib.suppress(TargetError):
            return load(one)
    return None


def _executed(case: Case) -> dict[str, int]:
    """Products by the precision in which they ran; {} where nothing ran."""
    found: dict[str, int] = {}
    for product in (*case.products, *case.counted):
        if row := case.ran(product):
            found[row.precision] = found.get(row.precision, 0) + 1
    return found


def _answers(case: Case, path: Path) -> list[Finding]:
    """Whether it still answers its golden inputs as it did where it was made."""
    if not case.layers:
        return []
    report = verify(path, case.threads)
    if report.ok:
        return []
    what = f"answers differ from those where it was made: {report.reason}"
    change = "another version of the engine or other instructions: export it again on this machine"
    return [Finding("answers", what, (), None, change, STATIC, wrong=True)]


def _layers(case: Case, limits: bounds.Limits | None) -> list[dict[str, Any]]:
    """Requested and executed precision, time and bound of every product."""
    made = []
    for product in case.products:
        row = case.ran(product)
        made.append({
            "layer": product.layer,
            "requested": case.precision,
            "executed": row.precision if row else None,
            "ms": row.time_ms if row else None,
            "macs": product.macs,
            "bound": limits.bound(row, product.macs) if limits and row else "",
        })  # fmt: skip
    return made


def _top(case: Case, limits: bounds.Limits | None) -> list[dict[str, Any]]:
    """The layers that take the most time."""
    total = sum(r.time_ms or 0.0 for r in case.layers)
    macs = {p.layer: p.macs for p in case.products}
    rows = sorted(case.layers, key=lambda r: -(r.time_ms or 0.0))[:TOP]
    return [
        {
            **row.to_json(),
            "share": (row.time_ms or 0.0) / total if total else None,
            "bound": limits.bound(row, macs.get(row.layer, 0)) if limits else "",
        }
        for row in rows
    ]


def _work(job: dict[str, Any]) -> dict[str, Any]:
    against = Path(job["against"]) if job.get("against") else None
    return explain(Path(job["bundle"]), against, job["threads"], job["budget_s"], report)


if __name__ == "__main__":
    serve(_work)
