"""The report on a terminal: the same facts as tables of plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecv import tasks
from edgecv.report import words
from edgecv.report.rows import metric_of
from edgecv.text_table import lines as table
from edgecv.text_table import precision

Data = dict[str, Any]
TOP = 5  # layers named for each bundle


def lines(data: Data) -> Iterator[str]:
    """Everything the page says in figures, line by line."""
    cpu = data["machine"].get("cpu")
    yield f"{data['name']}  ({cpu})" if cpu else data["name"]
    for target in data["targets"]:
        yield f"  {target['verdict']['text']}"
    rows = [row for target in data["targets"] for row in target["rows"]]
    notes: list[str] = []
    labelled = data["judged_by"] == "value"
    head = (*_HEAD[:3], *((data["points"], "points") if labelled else ("from float",)), *_HEAD[3:])
    results = [_row(row, labelled, notes) for row in rows]
    yield from _part("results", head, results, range(3, len(head) - 1))
    for i, note in enumerate(notes, 1):
        yield f"[{i}] {note}"
    yield from _figures(rows)
    minds = {(m["step"], m["target"]): m for m in data["minds"]}
    pairs = [_pair(p, minds.get((p["step"], p["target"])) or {}) for p in data["pairs"]]
    yield from _part("answers, image by image", _PAIRS, pairs, range(2, 10))
    surely = [_surely(row) for row in rows if row.get("points_interval") and not data["pairs"]]
    yield from _part("against float, paired", _SURELY, surely, (2, 4))
    for one in data["seen"]:
        yield from _found(one)
    parity = [_rungs(item) for item in data["parity"]]
    agreed = any(r.get("top1_agreement") is not None for p in data["parity"] for r in p["rungs"])
    task = tasks.task(data["task"]) if data["task"] else None
    pixels = task is not None and task.answers == "pixels"
    of = "pixels of equal best class" if pixels else "equal best classes"
    title = f"parity: SQNR and {of}" if agreed else "parity: SQNR"
    yield from _part(title, _RUNGS, parity, ())
    for search in data["searches"]:
        tried = [
            [line["setting"], *line["cells"], "taken" if line["chosen"] else ""]
            for line in search["lines"]
        ]
        title = f"search: {search['step']} on {search['target']}"
        yield from _part(title, (*search["head"], ""), tried, range(1, len(search["head"])))
    layers = [_layers(item) for item in data["layers"]]
    yield from _part(f"the {TOP} slowest layers", ("target", "step", "share of time"), layers, ())
    if data["missing"]:
        yield ""
        yield from (f"not shown: {line['part']}: {line['reason']}" for line in data["missing"])


def _found(one: Data) -> Iterator[str]:
    """What a compressed network finds otherwise, and the classes that it changed most."""
    yield ""
    yield f"{one['step']} on {one['target']}: {words.found(one['counts'])}"
    changed = one["classes"][:TOP]
    told = ", ".join(f"{c['label']} {words.signed(100 * c['change'], 1)}" for c in changed)
    if told:
        yield f"  points by class: {told}"


def _part(title: str, head: tuple[str, ...], rows: list[list[str]], right: Any) -> Iterator[str]:
    if rows:
        yield ""
        yield title
        yield from table(head, rows, right)


_HEAD = ("target", "step", "precision", "p50 ms", "× fp32", "interval", "size", "status")


def _row(row: Data, labelled: bool, notes: list[str]) -> list[str]:
    latency, compared = row.get("latency_ms") or {}, not row["is_reference"]
    status = row["status"]
    if row.get("reason"):
        if row["reason"] not in notes:
            notes.append(row["reason"])
        status += f" [{notes.index(row['reason']) + 1}]"
    judged = [words.percent(row["value"]), words.signed(row["points"]) if compared else ""]
    return [
        row["target"],
        row["step"],
        precision(row),
        *(judged if labelled else [words.decibel(row["sqnr_db"])]),
        words.ms(latency.get("p50")),
        words.ratio(row.get("latency_ratio")),
        words.interval(row["spread"], 3) if compared else "",
        words.size(row.get("engine_bytes")),
        status,
    ]


def _figures(rows: list[Data]) -> Iterator[str]:
    """What else the task's score says of each row."""
    keys = words.figures(key for row in rows for key in row["more"])
    told = [
        [
            row["target"],
            row["step"],
            *(words.beside(row["more"].get(key), metric_of(row), key) for key in keys),
        ]
        for row in rows
        if row["more"]
    ]
    head = ("target", "step", *map(words.figure, keys))
    yield from _part(f"other figures, {words.units(keys)}", head, told, range(2, len(head)))


_SURELY = ("target", "step", "points", "interval", "p")


def _surely(row: Data) -> list[str]:
    return [
        row["target"], row["step"], words.signed(row["points"]),
        words.interval(row["points_interval"]), words.p_value(row["p"]),
    ]  # fmt: skip


_PAIRS = ("target", "step", "changed", "only float", "only compressed", "points", "interval", "p",
          "saliency r", "overlap")  # fmt: skip


def _pair(pair: Data, mind: Data) -> list[str]:
    drift = mind.get("drift") or {}
    known = drift.get("r") is not None
    return [
        pair["target"],
        pair["step"],
        str(pair["changed"]),
        str(pair["only_float"]),
        str(pair["only_compressed"]),
        words.signed(pair["points"]),
        words.interval(pair["points_interval"]),
        words.p_value(pair["p"]),
        f"{drift['r']:.3f}" if known else "",
        f"{drift['iou']:.2f}" if known else "",
    ]


_RUNGS = ("target", "step", "network → float", "float → int8", "graph → compiled",
          "float → bundle")  # fmt: skip


def _rungs(item: Data) -> list[str]:
    cells = {"float graph": "", "int8 graph": "", "engine": "", "bundle": ""}
    for rung in item["rungs"]:
        cells[rung["to"]] = words.decibel(rung["sqnr_db"])
        if rung.get("top1_agreement") is not None:
            cells[rung["to"]] += f", {words.percent(rung['top1_agreement'], 1)} %"
    return [item["target"], item["step"], *cells.values()]


def _layers(item: Data) -> list[str]:
    timed = [row for row in item["rows"] if row["share"] is not None]
    slowest = sorted(timed, key=lambda row: -row["share"])[:TOP]
    said = (f"{r['name']} {words.percent(r['share'], 0)} % ({r['precision']})" for r in slowest)
    return [item["target"], item["step"], ", ".join(said)]
