"""results.json: one row for every step and target, with figures only where something was measured.

    {"schema": 1, "recipe", "machine", "results": [row, ...]}
    row: {"step", "target", "engine", "precision", "bundle",
          "metric": {"name", "value", "reference", "samples"},
          "latency_ms": {"p50", "p90", "p99"}, "latency_ratio", "cpu_time_ratio",
          "size_bytes", "status", "reason"}

A row also has engine_bytes (the engine's own files, without the bundle's golden inputs), executed
(compute layers by the precision they ran in, read back from the engine), cpu_ms, and parity: the
graph against the step before it (float against torch, int8 against float), and the compiled file
against the graph.

status is "ok" (built, measured), "unavailable" (something is not installed, or the device is not
here; reason says what, and what was measured all the same) or "failed". Ratios are against the fp32
reference on the same engine in the same interleaved run; metric.reference is its accuracy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgecv import __version__, making
from edgecv.bench.machine import machine
from edgecv.errors import MissingExtraError
from edgecv.nodes import Node
from edgecv.pipeline import Outcome
from edgecv.store import digest, disk_errors, write_atomic

Row = dict[str, Any]


def collect(outcome: Outcome) -> dict[str, Any]:
    """The whole results.json of a run."""
    nodes = outcome.expansion.nodes
    recipe = outcome.expansion.recipe
    bundles = [n for n in nodes.values() if n.kind == "bundle"]
    rows = [_row(node, outcome) for node in bundles]
    _references(rows, outcome)
    return {
        "schema": 1,
        "edgecv": __version__,
        "recipe": {
            "name": recipe.name,
            "digest": digest({n.id: n.digest for n in bundles}),
            "seed": recipe.seed,
            "threads": recipe.threads,
            "settings": list(recipe.settings),
        },
        "machine": machine(),
        "results": rows,
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
    facts = making.facts_of(outcome.folders[node.id])
    row |= {
        "bundle": f"bundles/{facts['bundle']}",
        "metric": facts["metric"],
        "size_bytes": facts["size_bytes"],
        "engine_bytes": facts["engine_bytes"],
        "executed": facts["executed"],
        "parity": facts["parity"],
    }
    return {**row, **_latency(node, facts, outcome)}


def _latency(node: Node, facts: dict[str, Any], outcome: Outcome) -> Row:
    target = node.target
    assert target is not None
    if facts["reason"]:
        return {"status": "unavailable", "reason": facts["reason"]}
    if away := target.not_here(machine()["features"]):
        return {"status": "unavailable", "reason": f"latency not measured: {away}"}
    measure = f"measure:{target.name}"
    if measure in outcome.failures:
        return {"status": "failed", "reason": str(outcome.failures[measure])}
    for found in making.facts_of(outcome.folders[measure])["bundles"]:
        if found["bundle"] == facts["bundle"]:
            times = {k: found["latency_ms"][k] for k in ("p50", "p90", "p99")}
            # Wall time well above CPU time: others had the processor.
            note = "machine was busy while measuring" if found["busy"] else ""
            return {
                "latency_ms": times,
                "latency_ratio": found["latency_ratio"],
                "latency_ratio_quartiles": found["latency_ratio_quartiles"],
                "cpu_time_ratio": found["cpu_time_ratio"],
                "cpu_ms": found["cpu_ms"],
                "reason": note,
            }
    return {"status": "unavailable", "reason": "latency not measured"}


def _references(rows: list[Row], outcome: Outcome) -> None:
    """Fill metric.reference: the fp32 accuracy on the same engine, else on another one."""
    measured = {
        (r["step"], r["engine"]): r["metric"]["value"]
        for r in rows
        if r["metric"] and r["precision"] == "fp32"
    }
    for row in rows:
        if row["metric"] is None:
            continue
        name = outcome.expansion.reference(row["step"])
        same = measured.get((name, row["engine"]))
        others = [v for (step, _), v in measured.items() if step == name]
        row["metric"]["reference"] = same if same is not None else (others or [None])[0]


def write(results: dict[str, Any], out: Path) -> Path:
    """Write results.json, atomically."""
    path = out / "results.json"
    with disk_errors(out):
        write_atomic(path, json.dumps(results, indent=1) + "\n")
    return path
