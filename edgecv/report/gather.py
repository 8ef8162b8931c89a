"""results.json and the store → plain data, the same for the page, the terminal and --json.

    {"name", "edgecv", "recipe", "machine", "versions", "commands",
     "judged_by": "value" (the task's metric), or "sqnr_db" where no row has one,
     "task":      whose outputs these are, or None,
     "points":    how its metric is called: "top-1", "mAP", "mIoU",
     "targets":  [{"name", "engine", "verdict", "rows": [row, ...]}],
     "cards":    [{"title", "step", ...}],        the safest and the fastest (`choice`)
     "splits":   [{"split", "images", ...}],      the images (`dataset`)
     "confusion": [{"step", "target", ...}],      classes answered for others (`confusion`)
     "pairs":    [{"target", "step", ...}],       paired answers, and the classes that moved
     "parity":   [{"target", "step", "rungs"}],   what every step kept of the one before
     "searches": [{"target", "step", "lines"}],   what was tried to meet limits
     "models":   [{"step", "history", "curve"}],  what became of networks before they were exported
     "layers":   [{"target", "step", "rows"}],    time and precision by layer
     "nodes":    [node, ...],                     what was made from what
     "minds":    [{"target", "step", ...}],       images answered otherwise, Grad-CAM (`evidence`)
     "seen":     [{"target", "step", ...}],       boxes and maps that differ (`seen`)
     "missing":  [{"part", "reason"}]}

A row is that of results.json with what follows from it (`edgecv.report.rows`).
Every part but the rows may be empty; missing says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import tasks
from edgecv.data.images import Images
from edgecv.errors import DataError
from edgecv.report import choice, confusion, dataset, differences, shape, verdict
from edgecv.report.again import commands
from edgecv.report.folder import Node, Row, Run, load
from edgecv.report.missing import Missing
from edgecv.report.pairing import cells_moved, classes_moved, paired
from edgecv.report.rows import metric_of, metric_words, row_of
from edgecv.report.search import searches
from edgecv.text_table import reason

Data = dict[str, Any]
OLD = "results.json does not list the run's steps: it was written by an older edgecv"


def gather(folder: Path) -> Data:
    """Everything but `minds`, `seen`. Raises DataError: no results.json, a damaged or newer one."""
    run = Run(folder, load(folder))
    with _readable(folder / "results.json"):
        return _gather(run)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A results.json of the wrong shape is one line, wherever it is found out."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as e:
        what = "is damaged: it holds what no run writes"
        raise DataError(str(path), what, "run the recipe again: what it made is reused") from e


def _gather(run: Run) -> Data:
    data, missing = run.data, Missing()
    rows = [row_of(row, data["results"]) for row in data["results"]]
    for row in rows:
        row["reason"] = reason(row, run.called)
    task = _task(run, rows)
    pairs = list(_pairs(run, rows, missing))
    _add_pairs(rows, pairs)
    differences.add(run, rows, missing)
    if not tasks.of_classes(task):
        missing.add("where networks look", f"Grad-CAM asks about one class of an image, and {task} "
                    "answers otherwise")  # fmt: skip
    recipe = dict(data.get("recipe") or {})
    name = str(recipe.get("name") or run.folder.resolve().name)
    return {
        "name": name,
        "edgecv": str(data.get("edgecv", "")),
        "recipe": recipe,
        "machine": dict(data.get("machine") or {}),
        "versions": {str(k): str(v) for k, v in (data.get("versions") or {}).items()},
        "commands": commands(name, recipe, rows),
        "task": task,
        "points": next((row["judged_in"] for row in rows if row["value"] is not None), "top-1"),
        "judged_by": (judged_by := _judged_by(rows)),
        "targets": _targets(rows, judged_by),
        "cards": (cards := choice.cards(rows, judged_by, run.called)),
        "splits": list(dataset.splits(run, missing)),
        "confusion": confusion.matrices(run, rows, cards),
        "pairs": pairs,
        "parity": list(_parity(run, rows, task, missing)),
        "searches": searches(data["results"]),
        "models": [_model(m) for m in data.get("models") or ()],
        "layers": list(_layers(run, rows, missing)),
        "nodes": _nodes(run, missing),
        "minds": [],
        "seen": [],
        "missing": missing.lines,
    }


def _task(run: Run, rows: list[Row]) -> str | None:
    """The task of a run's networks: by its metric, else as its bundles say."""
    measured = next((metric_of(row) for row in rows if row["value"] is not None), None)
    known = {tasks.task(name).metric: name for name in tasks.names()}
    if measured in known:
        return known[measured]
    nodes = filter(None, map(run.bundle, rows))
    facts = next(filter(None, (run.json(node["id"], "facts.json") for node in nodes)), {})
    said = facts.get("task", "classification")  # older ones knew nothing else
    return said if said in tasks.names() else None


def _model(model: Data) -> Data:
    """A network's history, its curve's figures called value whatever the task's metric is."""
    curve = [
        {"step": point["step"], "value": float(point[key])}
        for point in model["curve"]
        for key in metric_words()
        if key in point
    ]
    return {**model, "curve": curve}


def _judged_by(rows: list[Row]) -> str:
    by_labels = any(row["value"] is not None for row in rows)
    return "value" if by_labels or not any(row["sqnr_db"] for row in rows) else "sqnr_db"


def _targets(rows: list[Row], judged_by: str) -> list[Data]:
    names = dict.fromkeys(row["target"] for row in rows)
    groups = {name: [r for r in rows if r["target"] == name] for name in names}
    for group in groups.values():
        verdict.mark_front(group)
    return [
        {"name": name, "engine": group[0]["engine"], "verdict": verdict.of(name, group, judged_by),
         "rows": group}
        for name, group in groups.items()
    ]  # fmt: skip


def compared(run: Run, rows: list[Row]) -> Iterator[tuple[Row, Node | None, Node | None, Images]]:
    """Every compressed row whose answers are kept, its node, and the float network's node."""
    for row in rows:
        node = run.bundle(row)
        if row["is_reference"] or node is None or run.predictions(node) is None:
            continue
        images = run.images(node)
        if images is not None and images.classes:
            yield row, node, partner(run, row, rows), images


def partner(run: Run, row: Row, rows: list[Row]) -> Node | None:
    """The float bundle to compare with: on the same target, else of the same format, else any."""
    node = run.bundle(row)
    ours = run.graph(node["inputs"].get("graph")) if node else None
    found: list[tuple[bool, bool, int, Node]] = []
    for other in rows:
        bundle = run.bundle(other)
        if other["step"] != row["reference"] or run.predictions(bundle) is None or bundle is None:
            continue
        theirs = run.graph(bundle["inputs"].get("graph"))
        alike = ours is not None and theirs is not None and ours.suffix == theirs.suffix
        found.append((other["target"] != row["target"], not alike, len(found), bundle))
    return min(found)[3] if found else None


def _pairs(run: Run, rows: list[Row], missing: Missing) -> Iterator[Data]:
    part = "what changed, image by image"
    if not run.nodes:
        missing.add(part, OLD)
        return
    for row, node, other, images in compared(run, rows):
        before, after = run.predictions(other), run.predictions(node)
        where = f"{row['step']} on {row['target']}"
        if before is None or after is None:
            missing.add(part, f"{where}: no answers of the float network are kept")
            continue
        if not len(before) == len(after) == len(images):
            missing.add(part, f"{where}: answers and images differ in number")
            continue
        yield _pair(row, before, after, images)
    if not any(run.place(n["id"]) for n in run.nodes.values() if n["kind"] == "bundle"):
        missing.add(part, "the answers are in the run's store, which is not here")


def _add_pairs(rows: list[Row], pairs: list[Data]) -> None:
    """Give every row the interval of its change in accuracy, where answers are kept."""
    found = {(p["step"], p["target"]): p for p in pairs}
    for row in rows:
        pair = found.get((row["step"], row["target"])) or {}
        row["points_interval"], row["p"] = pair.get("points_interval"), pair.get("p")


def _pair(row: Row, before: np.ndarray, after: np.ndarray, images: Images) -> Data:
    names = images.classes
    return {
        "target": row["target"],
        "step": row["step"],
        "reference": row["reference"],
        **paired(before, after, images.labels),
        "classes": classes_moved(before, after, images.labels, names),
        "cells": cells_moved(before, after, images.labels, names),
    }


def _parity(run: Run, rows: list[Row], task: str | None, missing: Missing) -> Iterator[Data]:
    """Per bundle, from the network to the compiled file, what each step kept; equal best classes
    where the task's outputs have some."""
    classes = task is not None and tasks.task(task).best_class
    for row in rows:
        found = row.get("parity") or {}
        node = run.bundle(row)
        # The name is asked of the node: a recipe may call a quantized step anything.
        graph = run.nodes.get(node["inputs"].get("graph", "")) if node else None
        quantized = graph["kind"] == "quantize" if graph else row["precision"] == "int8"
        rungs = []
        if quantized:
            facts = run.json(run.float_graph(node), "graph.json") if node else {}
            kept = facts.get("facts", {}) if not shape.wrong(facts, {"facts?": dict}) else {}
            rungs.append(("network", "float graph", kept.get("parity")))
            rungs.append(("float graph", "int8 graph", found.get("graph")))
            rungs.append(("int8 graph", "engine", found.get("compiled")))
            rungs.append(("float graph", "bundle", found.get("float")))
        else:
            rungs.append(("network", "float graph", found.get("graph")))
            rungs.append(("float graph", "engine", found.get("compiled")))
        known = [
            {"from": a, "to": b, **value, **({} if classes else {"top1_agreement": None})}
            for a, b, value in rungs
            if value is not None and not shape.wrong(value, shape.PARITY)
        ]
        if known:
            yield {"target": row["target"], "step": row["step"], "rungs": known}
        for a, b, value in rungs:
            if value is None and known and b != "bundle":
                reason = "the compiled file was not run here" if b == "engine" else "not kept"
                where = row["target"] if b == "engine" else f"{row['step']}, {a} → {b}"
                missing.add("parity", f"{where}: {reason}")


def _layers(run: Run, rows: list[Row], missing: Missing) -> Iterator[Data]:
    part, any_found = "time by layer", False
    for row in rows:
        if not row.get("latency_ms"):
            continue
        measure, node = run.measure(row["target"]), run.bundle(row)
        name = run.json(node["id"], "facts.json").get("bundle") if node else None
        facts = run.json(measure["id"], "facts.json") if measure else {}
        if shape.wrong(facts, {"bundles": shape.Every(list, dict)}):
            continue
        for found in facts["bundles"]:
            layers = found.get("layers")
            whole = layers and not shape.wrong(layers, shape.Every(list, shape.LAYER))
            if name is not None and found.get("bundle") == name and whole:
                any_found = True
                yield {"target": row["target"], "step": row["step"],
                       "precision": row["precision"], "rows": _layer_rows(layers)}  # fmt: skip
    if not any_found:
        missing.add(part, "no profile was taken")


def _layer_rows(layers: list[dict[str, Any]]) -> list[Data]:
    """Layers in the network's order, each with its share of the whole."""
    times = [layer.get("time_ms") for layer in layers]
    total = sum(t for t in times if t is not None) or None
    rows = []
    for layer, time in zip(layers, times, strict=True):
        share = layer.get("share")
        if share is None and time is not None and total:
            share = time / total
        rows.append({
            "name": str(layer.get("layer") or layer.get("name") or ""),
            "op": str(layer.get("op") or ""),
            "precision": str(layer.get("precision") or ""),
            "time_ms": time,
            "share": share,
            "bytes": layer.get("bytes"),
        })  # fmt: skip
    return rows


def _nodes(run: Run, missing: Missing) -> list[Data]:
    """The nodes, each with the first node of the same digest, whose result it shares."""
    if not run.nodes:
        missing.add("the stage graph", OLD)
    first: dict[str, str] = {}
    for node in run.nodes.values():
        first.setdefault(node["digest"], node["id"])
    keys = ("id", "kind", "step", "target", "inputs", "digest", "action", "seconds")
    return [
        {**{k: node.get(k) for k in keys},
         "same_as": None if first[node["digest"]] == node["id"] else first[node["digest"]]}
        for node in run.nodes.values()
    ]  # fmt: skip
