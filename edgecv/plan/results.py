"""results.json: one row for every step and target, with figures only where something was measured.

    {"schema": 2, "recipe", "machine", "versions", "nodes": [...], "results": [row, ...]}
    row: {"step", "target", "engine", "precision", "bundle",
          "metric": {"name", "value", "reference", "samples"},
          "latency_ms": {"p50", "p90", "p99", "mean"}, "latency_ratio", "latency_ratio_interval",
          "cpu_time_ratio", "cpu_time_ratio_interval", "calibrated", "calibration", "threads",
          "throughput", "load_ms", "first_call_ms", "memory_mb", "busy", "size_bytes", "status",
          "reason"}

A row also has engine_bytes (the engine's own files, without the bundle's golden inputs), executed
(compute layers by the precision they ran in, read back from the engine), cpu_ms, and parity: the
graph against the step before it (float against torch, int8 against float), and the compiled file
against the graph.

    model:  {"step", "summary", "history": [line, ...], "curve": [{"step", METRIC}, ...]}

models are the steps that changed a network in PyTorch: what the step measured in a line, all that
became of its network so far, and the task's metric, by its name, on the way through the step.

control is the same shape trained from scratch, where `prune` was asked for one. search is what a
step tried to meet its limits (`edgecv.methods.quantize.search`). made_up, where it is there, says
that the images of parity were no photographs. agreement is the
share of the test images whose best class is that of the fp32 reference on the same engine;
expected_drop, where there are no labels, what that costs as fp32 sees it (`edgecv.limits`). limits
is a verdict for every set of limits (`edgecv.limits.judge`): what was asked, the rows that meet it,
and the nearest.

Intervals are at 95%. calibrated and calibration hold the latency against a fixed workload, for
`edgecv gate`; device and machine are there when it was measured on another machine than this.

status is "ok" (built, measured), "unavailable" (something is not installed, or the device is not
here; reason says what, and what was measured all the same) or "failed". Ratios are against the fp32
reference on the same engine in the same interleaved run; metric.reference is its accuracy, and
reference the name of its step.

    recipe: {"name", "digest", "seed", "threads", "settings", "file", "text", "only"}
    node:   {"id", "kind", "step", "target", "inputs": {role: id}, "digest", "action", "seconds"}

recipe.text is the file as it was read, before settings (`--set`) and only (`--target`) changed it;
it is absent when the recipe was no file. nodes is what was made from what: the result of one lies
in store/done/<digest>. kind is a stage's word, or data, model, bundle, measure; action is "made",
"reused" or "failed" in this run; seconds is how long it took when it was made, in whichever run,
or null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import __version__, tasks
from edgecv.backends import every
from edgecv.benchmark.machine import cpu_features, machine
from edgecv.errors import MissingExtraError
from edgecv.files import digest, disk_errors, write_atomic
from edgecv.keys.versions import versions
from edgecv.limits import Limits, expected_drop, judge
from edgecv.measuring import facts as kept
from edgecv.measuring.facts import BundleFacts
from edgecv.models import history
from edgecv.models.model import Model
from edgecv.plan.execute import Outcome
from edgecv.plan.node import Node
from edgecv.plan.recipe import Recipe
from edgecv.plan.store import seconds_of
from edgecv.text_table import SLOWER

Row = dict[str, Any]

# What a row takes over from a measurement (`edgecv.benchmark.measure`).
MEASURED = (
    "latency_ms", "latency_ratio", "latency_ratio_interval", "cpu_time_ratio",
    "cpu_time_ratio_interval", "cpu_ms", "throughput", "calibrated", "import_ms", "load_ms",
    "first_call_ms", "memory_mb", "energy_mj", "busy",
)  # fmt: skip

# What shapes a network, beside the engines' own libraries; what is not installed is left out.
LIBRARIES = ("numpy", "torch", "torch-pruning", "safetensors", "onnx", "onnxscript", "pillow")


def collect(outcome: Outcome, source: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole results.json of a run.

    source: where the recipe came from: its file, text and only, as above
    """
    nodes = outcome.expansion.nodes
    recipe = outcome.expansion.recipe
    bundles = [n for n in nodes.values() if n.kind == "bundle"]
    rows = [_row(node, outcome) for node in bundles]
    _references(rows, outcome)
    _agreements(rows, outcome)
    return {
        "schema": 2,
        "edgecv": __version__,
        "recipe": {
            "name": recipe.name,
            "digest": digest({n.id: n.digest for n in bundles}),
            "seed": recipe.seed,
            "threads": recipe.threads,
            "settings": list(recipe.settings),
            **(source or {}),
        },
        "machine": machine(),
        "versions": {name: v for name, v in versions(_libraries()).items() if v},
        "nodes": [_node(node, outcome) for node in nodes.values()],
        "results": rows,
        "models": [_model(n, outcome) for n in nodes.values() if _changed(n, outcome)],
        "limits": _limits(rows, recipe),
    }


def _libraries() -> list[str]:
    return [*LIBRARIES, *(name for said in every().values() for name in said.libraries)]


def _changed(node: Node, outcome: Outcome) -> bool:
    stage = node.stage
    changes = stage is not None and stage.compresses and stage.produces == "model"
    return changes and (outcome.folders.get(node.id, Path()) / "model.json").is_file()


def _model(node: Node, outcome: Outcome) -> dict[str, Any]:
    model = Model.read(outcome.folders[node.id])
    facts = model.facts.get(node.step, {})
    return {
        "step": node.step,
        "summary": history.summary(facts),
        "history": history.of(model),
        "curve": list(facts.get("curve", ())),
    }


def _limits(rows: list[Row], recipe: Recipe) -> list[dict[str, Any]]:
    """A verdict for each set of limits, over the rows of all the steps that have it."""
    judged: dict[Limits, list[Row]] = {}
    for step in recipe.shipped():
        if limits := recipe.limits_of(step):
            judged.setdefault(limits, []).extend(r for r in rows if r["step"] == step.name)
    return [judge(limits, found) for limits, found in judged.items()]


def _node(node: Node, outcome: Outcome) -> dict[str, Any]:
    """What was made from what, and where it lies."""
    folder = outcome.folders.get(node.id)
    action = "reused" if node.id in outcome.reused else "made"
    return {
        "id": node.id,
        "kind": node.kind if node.stage is None else node.stage.word,
        "step": node.step,
        "target": node.target.name if node.target else None,
        "inputs": dict(node.inputs),
        # A measurement that went on without a failed bundle has another digest than it was to have.
        "digest": folder.name if folder else node.digest,
        "action": action if folder else "failed",
        "seconds": seconds_of(folder) if folder else None,
    }


def _row(node: Node, outcome: Outcome) -> Row:
    assert node.target is not None
    row: Row = {
        "step": node.step,
        "target": node.target.name,
        "engine": node.target.backend,
        "precision": node.precision,
        "bundle": None,
        "metric": None,
        "latency_ms": None,
        "latency_ratio": None,
        "cpu_time_ratio": None,
        "size_bytes": None,
        "status": "ok",
        "reason": "",
    }
    failure = outcome.failures.get(node.id)
    if failure is not None:
        missing = isinstance(failure, MissingExtraError)
        return {**row, "status": "unavailable" if missing else "failed", "reason": str(failure)}
    facts = kept.read(outcome.folders[node.id])
    row |= {
        "bundle": f"bundles/{facts.bundle}",
        "metric": facts.metric,
        "size_bytes": facts.size_bytes,
        "engine_bytes": facts.engine_bytes,
        "executed": facts.executed,
        "parity": facts.parity,
    }
    if facts.made_up:
        row["made_up"] = True
    if facts.search:
        row["search"] = facts.search
    row |= _latency(node, facts, outcome)
    told = control(node.step, outcome.folders.get(node.step))
    if told:
        row["control"] = told
        row["reason"] = "; ".join(filter(None, (row["reason"], control_words(told))))
    return row


def control(step: str, folder: Path | None) -> dict[str, Any] | None:
    """{"epochs", "lr", "top1"} of the same shape trained from scratch, where a step made one."""
    if folder is None or not (folder / "model.json").exists():
        return None
    found = Model.read(folder).facts.get(step, {}).get("scratch")
    return dict(found) if found else None


def control_words(told: dict[str, Any]) -> str:
    """The control in a line."""
    metric = told.get("metric", "top1")
    said = f"{tasks.called(metric)} {100 * told[metric]:.2f}"
    return f"its shape from scratch: {said} after {told['epochs']} epochs"


def _latency(node: Node, facts: BundleFacts, outcome: Outcome) -> Row:
    target = node.target
    assert target is not None
    if facts.reason:
        return {"status": "unavailable", "reason": facts.reason}
    away = target.not_here(cpu_features())
    if away and not target.device:
        return {"status": "unavailable", "reason": f"latency not measured: {away}"}
    measure = f"measure:{target.name}"
    if measure in outcome.failures:
        return {"status": "failed", "reason": str(outcome.failures[measure])}
    measured = kept.measured(outcome.folders[measure])
    for found in measured["bundles"]:
        if found["bundle"] == facts.bundle:
            # Wall time well above CPU time: others had the processor.
            notes = ["machine was busy while measuring"] if found["busy"] else []
            interval = found["latency_ratio_interval"]
            if node.precision == "int8" and interval and interval[0] > 1:
                notes.append(SLOWER)
            there = {"device": target.device, "machine": measured["machine"]} if away else {}
            return {
                **{key: found[key] for key in MEASURED},
                "threads": measured["threads"],
                "calibration": measured["calibration"],
                "reason": "; ".join(notes),
                **there,
            }
    return {"status": "unavailable", "reason": "latency not measured"}


def _references(rows: list[Row], outcome: Outcome) -> None:
    known = references(outcome)
    for row in rows:
        row["reference"] = outcome.expansion.reference(row["step"])
        if row["metric"] is not None:
            row["metric"]["reference"] = known.get(f"bundle:{row['step']}@{row['target']}")


def references(outcome: Outcome) -> dict[str, float]:
    """fp32's accuracy (0..1) by a bundle's node: on the same engine, else on another one."""
    made, nodes = outcome.folders.keys() - outcome.failures.keys(), outcome.expansion.nodes
    bundles = [n for n in nodes.values() if n.kind == "bundle" and n.id in made]
    measured: dict[str, dict[str, float]] = {}  # step -> engine -> accuracy
    for node in bundles:
        facts = kept.read(outcome.folders[node.id])
        if facts.metric and node.target and node.precision == "fp32":
            measured.setdefault(node.step, {})[node.target.backend] = facts.metric["value"]
    found: dict[str, float] = {}
    for node in bundles:
        of = measured.get(outcome.expansion.reference(node.step), {})
        if of and node.target:
            found[node.id] = of.get(node.target.backend, next(iter(of.values())))
    return found


def _agreements(rows: list[Row], outcome: Outcome) -> None:
    """Fill agreement: the share of the test images with the best class of the fp32 reference."""
    found = {
        (r["step"], r["target"]): _kept(r["step"], r["target"], outcome, "predictions")
        for r in rows
    }
    for row in rows:
        own, reference = (found.get((s, row["target"])) for s in (row["step"], row["reference"]))
        if own is not None and reference is not None and len(own) == len(reference):
            row["agreement"] = float((own == reference).mean())
            outputs = _kept(row["reference"], row["target"], outcome, "outputs")
            if row["metric"] is None and outputs is not None:
                row["expected_drop"] = expected_drop(own, outputs)


def _kept(step: str, target: str, outcome: Outcome, name: str) -> np.ndarray | None:
    """What packing kept of a bundle's answers beside it."""
    folder = outcome.folders.get(f"bundle:{step}@{target}")
    path = folder / f"{name}.npy" if folder else None
    return np.load(path, allow_pickle=False) if path and path.is_file() else None


def write(results: dict[str, Any], out: Path) -> Path:
    """Write results.json, atomically."""
    path = out / "results.json"
    with disk_errors(out):
        write_atomic(path, json.dumps(results, indent=1) + "\n")
    return path
