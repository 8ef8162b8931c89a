"""The two networks that a reader is to see first, chosen by stated rules.

fastest   the least time relative to fp32 on the same engine, of what was timed
safest    the least loss (a gain counts as none), of those whose 95% interval reaches no loss
          where there are any; ties go to the shorter time. Without labels: the highest SQNR

Only of what is surely faster than fp32, surely more accurate, or smaller. Where nothing is, fp32 is
what to ship, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from edgecv.report import words
from edgecv.report.folder import Row
from edgecv.text_table import why

Card = dict[str, Any]
RULES = {
    "safest": "the least loss, of networks whose loss may be chance (95%) where there are any; "
    "then the least time",
    "fastest": "the least time relative to fp32 on the same engine",
}
NOTHING = "Nothing here is worth shipping over fp32"
UNLABELLED = "the highest signal to quantization noise; then the least time"


def cards(rows: Sequence[Row], judged_by: str = "value", folder: Path = Path()) -> list[Card]:
    """[safest, fastest] of a run's rows: {"title", "step", "target", "lead", "lines", "file",
    "busy", "rule", "command"}; one of both titles where they are the same network, none where
    nothing was timed or judged. fp32 alone, and the command that says why, where it beats all.

    judged_by: "value", or "sqnr_db" of a run without labels
    folder: the run's, for the command
    """
    every = [r for r in rows if not r["is_reference"] and r.get("latency_ratio")]
    timed = [r for r in every if wins(r)]
    if every and not timed:
        return _nothing(rows, every, folder)
    kept, quick = safest(timed, judged_by), fastest(timed)
    rules = RULES | ({"safest": UNLABELLED} if judged_by == "sqnr_db" else {})
    if kept is not None and kept is quick:
        rule = f"{rules['safest']}; and {rules['fastest']}"
        return [_card("Safest and fastest", kept, rule, True)]
    found = []
    if kept is not None:
        found.append(_card("Safest", kept, rules["safest"], True))
    if quick is not None:
        found.append(_card("Fastest", quick, rules["fastest"], False))
    return found


def fastest(timed: Sequence[Row]) -> Row | None:
    """Of rows with a time."""
    return min(timed, key=lambda r: float(r["latency_ratio"]), default=None)


def safest(timed: Sequence[Row], judged_by: str = "value") -> Row | None:
    """Of rows with a time; None where none was judged."""
    if judged_by == "sqnr_db":
        known = [r for r in timed if r["sqnr_db"] is not None]
        return min(known, key=lambda r: (-r["sqnr_db"], r["latency_ratio"]), default=None)
    known = [r for r in timed if r["points"] is not None]
    sound = [r for r in known if not shown(r)]
    return min(sound or known, key=lambda r: (_loss(r), r["latency_ratio"]), default=None)


def wins(row: Row) -> bool:
    """Whether a row is surely faster than its fp32, surely more accurate, or smaller; true where
    its size beside fp32's is not known."""
    time, gain = row["spread"], row.get("points_interval")
    faster = time[1] < 1 if time else row["latency_ratio"] < 1
    better = gain[0] > 0 if gain else (row["points"] or 0) > 0
    return bool(faster or better or not row["smaller"] or row["smaller"] > 1)


def shown(row: Row) -> bool:
    """Whether a loss is known to be one: the interval of its points lies below 0; a row without
    an interval is taken at its figure."""
    interval = row.get("points_interval")
    return bool(interval[1] < 0) if interval else _loss(row) > 0


def _loss(row: Row) -> float:
    """In points, as it is written."""
    return max(0.0, round(-float(row["points"]), 2))


def _nothing(rows: Sequence[Row], beaten: Sequence[Row], folder: Path) -> list[Card]:
    """The quickest fp32 that they were compared with; in what its least slow rival falls behind."""
    ends = {(r["reference"], r["target"]) for r in beaten}
    fp32 = [r for r in rows if r["is_reference"] and (r["step"], r["target"]) in ends]
    best = min(fp32, key=lambda r: (r.get("latency_ms") or {}).get("p50") or inf, default=None)
    if best is None:
        return []
    near = min(
        (r for r in beaten if r["target"] == best["target"]), key=lambda r: r["latency_ratio"]
    )
    said = _card("", near, "", True)
    lines = [f"Beside it, {near['step']}: {said['lead']}", *said["lines"]]
    rule = "no other network is surely faster, surely more accurate, or smaller"
    command = why(near, folder) if near.get("bundle") else ""
    return [
        _card(NOTHING, best, rule, True) | {"lead": "ship fp32", "lines": lines, "command": command}
    ]


def _card(title: str, row: Row, rule: str, by_loss: bool) -> Card:
    (kept, points), (speed, ratio) = _accuracy(row), _time(row)
    size = words.size(row.get("engine_bytes"))
    if size and row["smaller"]:
        less = row["smaller"] >= 1
        size += f", {words.times(row['smaller'])}× smaller" if less else ", larger than fp32"
    if by_loss:
        lead, lines = kept, [points, f"{speed}: {ratio}", size]
    else:
        lead, lines = speed, [ratio, f"{kept}: {points}" if points else kept, size]
    return {
        "title": title, "step": row["step"], "target": row["target"], "lead": lead,
        "lines": [line for line in lines if line], "file": str(row.get("bundle") or ""),
        "busy": bool(row.get("busy")), "rule": rule, "command": "",
    }  # fmt: skip


def _accuracy(row: Row) -> tuple[str, str]:
    """What is lost, in words, and in figures."""
    points, interval = row["points"], row.get("points_interval")
    if points is None:
        said = words.decibel(row.get("sqnr_db"))
        return (f"{said} from fp32" if said else "accuracy not measured"), ""
    called = row.get("judged_in", "top-1")
    told = f"{words.signed(points)} points of {called} {words.interval(interval)}".strip()
    if shown(row):
        return f"{words.times(_loss(row))} points lost", told
    return ("no loss beyond chance" if _loss(row) else "no loss"), told


def _time(row: Row) -> tuple[str, str]:
    """How fast, in words, and in figures."""
    ratio, interval = row["latency_ratio"], row["spread"]
    told = f"{words.times(ratio)} of fp32's time {words.interval(interval)}".strip()
    if interval and interval[0] <= 1 <= interval[1]:
        return "as fast as fp32", told
    if ratio <= 1:
        return f"{words.times(1 / ratio)}× faster than fp32", told
    return f"{words.times(ratio)}× slower than fp32", told
