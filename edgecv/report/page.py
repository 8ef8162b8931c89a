"""The report's data → one HTML file: charts drawn, pictures embedded, the template filled."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import tasks
from edgecv.backends import ENGINES, facts
from edgecv.data.images import Images
from edgecv.errors import missing
from edgecv.limits import LEAST
from edgecv.report import dataset, flow, pictures, plots, scenes, words
from edgecv.report.folder import Run
from edgecv.report.found import Change
from edgecv.report.pairing import CLASSES
from edgecv.tasks import drawing

Data = dict[str, Any]
HERE = Path(__file__).parent
# What is here, in the order of the page: (id, title).
SECTIONS = (
    ("trade", "Accuracy, time, size"),
    ("results", "Results"),
    ("changed", "What changed"),
    ("found", "What is found otherwise"),
    ("confusion", "Confusion matrix"),
    ("data", "Data"),
    ("parity", "Parity"),
    ("models", "Networks"),
    ("search", "Search"),
    ("layers", "Layers"),
    ("stages", "Stages"),
    ("again", "Reproduce"),
)
CLASSES_LISTED = 60  # in the table of the data
LABELS = ("trade", "changed")  # what needs them
# What is there where the data has something for it: id -> key of the data.
SOMETIMES = {"search": "searches", "models": "models", "found": "seen",
             "confusion": "confusion", "data": "splits"}  # fmt: skip


def check_libraries() -> None:
    """Raises MissingExtraError before anything is worked out in vain."""
    for module, package in (
        ("jinja2", "jinja2"),
        ("vl_convert", "vl-convert-python"),
        ("PIL", "pillow"),
    ):
        try:
            __import__(module)
        except ImportError:
            raise missing(package, "report", "edgecv report") from None


def html(run_dir: Path, data: Data) -> str:
    """The page. Labels, names and reasons are text of others: everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in (
            "signed", "percent", "ms", "times", "ratio", "size", "seconds", "p_value", "interval",
            "decibel", "plural", "figure", "found", "beside", "units",
        )
    }  # fmt: skip
    environment.filters["balance"] = dataset.balance
    rows = [row for target in data["targets"] for row in target["rows"]]
    script = (HERE / "sort.js").read_text()
    colours = plots.series(rows)
    template = environment.get_template("page.html.j2")
    return template.render(
        data=data,
        rows=rows,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((HERE / "style.css").read_text()),
        sections=[s for s in SECTIONS if _shown(s[0], data)],
        searches=data["searches"],
        least=LEAST,
        models=data["models"],
        engines={name: facts(name).label for name in ENGINES},
        charts=_charts(data, rows, colours),
        colours=colours,
        pairs=_pairs(Run(run_dir, data), data),
        seen=[_seen(Run(run_dir, data), one) for one in data["seen"]],
        ladder=_ladder(data["parity"]),
        layers=_layers(data["layers"]),
        flow=flow.layout(data["nodes"]),
        reasons={
            reason: i
            for i, reason in enumerate(
                dict.fromkeys(r["reason"] for r in rows if r.get("reason")), 1
            )
        },
        classes=dataset.table(data["splits"], CLASSES_LISTED),
        extra=[k for k in ("memory_mb", "load_ms", "first_call_ms") if any(r.get(k) for r in rows)],
        spreads=any(r["spread"] for r in rows),
        figures=words.figures(key for row in rows for key in row["more"]),
        task=tasks.task(data["task"]) if data["task"] else None,
        samples=sorted({int(r["metric"]["samples"]) for r in rows if r.get("metric")}),
    )


def _shown(section: str, data: Data) -> bool:
    """Whether the page has that section."""
    if section in LABELS:
        told = section != "changed" or data["pairs"] or not data["seen"]
        return bool(data["judged_by"] == "value" and told)
    return section not in SOMETIMES or bool(data[SOMETIMES[section]])


def _svg(spec: Data, label: str) -> Any:
    from markupsafe import Markup

    return Markup(plots.render(spec, label))


def _charts(data: Data, rows: list[Data], colours: dict[str, int]) -> dict[str, Data]:
    """Target -> its charts; none where nothing was measured on it."""
    span, charts = plots.domain(rows), {}
    for target in data["targets"]:
        name = target["name"]
        known = [r for r in target["rows"] if r["value"] is not None]
        timed = [r for r in known if r.get("latency_ratio")]
        made = {}
        if timed:
            label = (
                f"{name}: {data['points']} against time relative to fp32. {_spoken(timed, True)}"
            )
            made["time"] = _svg(plots.time_chart(timed, colours, span), label)
        if any(r.get("engine_bytes") for r in known):
            label = f"{name}: {data['points']} against size. {_spoken(known, False)}"
            made["size"] = _svg(plots.size_chart(known, colours, span), label)
        if made:
            charts[name] = made
    return charts


def _spoken(rows: list[Data], timed: bool) -> str:
    """A chart's points as a sentence, for those who do not see it."""
    parts = []
    for r in rows:
        x = f"{words.times(r['latency_ratio'])} times" if timed else words.size(r["engine_bytes"])
        parts.append(f"{r['step']} {words.percent(r['value'])} percent at {x}")
    return "; ".join(parts) + "."


def _pairs(run: Run, data: Data) -> list[Data]:
    """Every compressed bundle's paired counts with its chart, cells and pictures."""
    minds = {(m["step"], m["target"]): m for m in data["minds"]}
    found = []
    for pair in data["pairs"]:
        mind = minds.get((pair["step"], pair["target"]))
        classes = pair["classes"][:CLASSES]
        chart = None
        if classes:
            said = "; ".join(f"{c['label']} {c['lost']} and {c['won']}" for c in classes)
            label = f"Images that only float, and only {pair['step']}, got right: {said}."
            chart = _svg(plots.classes_chart(classes), label)
        shown = _pictures(run, mind) if mind else []
        found.append({**pair, "chart": chart, "mind": mind, "shown": shown})
    return found


def _pictures(run: Run, mind: Data) -> list[Data]:
    """The images of one bundle with their data URIs."""
    node = run.bundle(mind)
    images = run.images(node) if node else None
    if images is None:
        return []
    size = images.pixels.shape[1:3]
    return [
        {
            **shown,
            "size": size,
            "picture": pictures.image(images.pixels[shown["index"]]),
            "veils": [pictures.veil(m, size) for m in shown.get("maps", ())],
        }
        for shown in mind["images"]
    ]


def _seen(run: Run, one: Data) -> Data:
    """What one compressed bundle finds otherwise, with its charts and pictures."""
    node = run.bundle(one)
    images = run.images(node) if node else None
    charts = {}
    if one["classes"]:
        said = "; ".join(
            f"{c['label']} {words.signed(100 * c['change'], 1)}" for c in one["classes"]
        )
        charts["classes"] = _svg(plots.changes_chart(one["classes"]), f"Points by class: {said}.")
    if one["curves"]:
        curves = {one["reference"]: one["curves"]["before"], one["step"]: one["curves"]["after"]}
        charts["curves"] = _svg(
            plots.curves_chart(curves, {one["reference"]: 0, one["step"]: 1}),
            "Precision against recall, the mean over classes.",
        )
    shown = [] if images is None else [_scene(images, entry) for entry in one["images"]]
    return {**one, "charts": charts, "shown": shown}


def _scene(images: Images, entry: Data) -> Data:
    """An image on which two networks differ: its boxes drawn, or its maps with a legend."""
    from markupsafe import Markup

    y0, x0, y1, x1 = entry["visible"]
    pixels = np.asarray(images.pixels[entry["index"], y0:y1, x0:x1])
    if "changes" not in entry:
        legend = [(drawing.colour(k), drawing.named(images.classes, k)) for k in entry["classes"]]
        # in grey, so that a colour is a class or a difference and nothing else
        seen = drawing.faded(pixels[..., :3]) if pixels.shape[2] >= 3 else pixels
        return {**entry, "picture": pictures.scene(seen), "legend": legend}
    found = [Change(**change) for change in entry["changes"]]
    scene = scenes.scene(pixels, found, images.classes)
    return {**entry, **scene, "svg": Markup(scene["svg"])}


def _ladder(parity: list[Data]) -> list[Data]:
    """Rows of the parity table: a cell for each rung, empty where it was not measured."""
    rungs = (
        ("network", "float graph"), ("float graph", "int8 graph"), (None, "engine"),
        ("float graph", "bundle"),
    )  # fmt: skip
    rows = []
    for item in parity:
        cells = [
            next((r for r in item["rungs"] if r["to"] == to and start in (None, r["from"])), None)
            for start, to in rungs
        ]
        agreed = any(cell and cell.get("top1_agreement") is not None for cell in cells)
        rows.append({
            "target": item["target"], "step": item["step"], "cells": cells, "agreed": agreed,
        })  # fmt: skip
    return rows


def _layers(layers: list[Data]) -> list[Data]:
    """Per target one table: a line for each layer, a column for each step."""
    tables = []
    for target in dict.fromkeys(item["target"] for item in layers):
        items = [item for item in layers if item["target"] == target]
        columns = [_by_name(item["rows"]) for item in items]
        names = dict.fromkeys(name for column in columns for name in column)
        most = max((c["time_ms"] or 0 for column in columns for c in column.values()), default=0)
        lines = []
        for name in names:
            cells = [column.get(name) for column in columns]
            ops = dict.fromkeys(op for c in cells if c for op in c["ops"])
            lines.append({"name": name, "op": ", ".join(ops), "cells": cells})
        totals = [sum(c["time_ms"] or 0 for c in column.values()) for column in columns]
        tables.append({
            "target": target, "steps": [(i["step"], i["precision"]) for i in items],
            "lines": lines, "most": most or 1, "totals": totals,
        })  # fmt: skip
    return tables


def _by_name(rows: list[Data]) -> dict[str, Data]:
    """An engine may run a layer as several kernels: their times add up."""
    found: dict[str, Data] = {}
    for row in rows:
        cell = found.setdefault(
            row["name"], {"time_ms": None, "share": None, "precisions": [], "ops": []}
        )
        for key in ("time_ms", "share"):
            if row[key] is not None:
                cell[key] = (cell[key] or 0.0) + row[key]
        for key, value in (("precisions", row["precision"]), ("ops", row["op"])):
            if value and value not in cell[key]:
                cell[key].append(value)
    return found
