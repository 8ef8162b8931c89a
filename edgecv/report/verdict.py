"""One sentence per target: how much faster, for which price in accuracy, how surely."""

from __future__ import annotations

from typing import Any

from edgecv.report import words
from edgecv.report.folder import Row

DEAR = 2.0  # points of top-1 that the network of the headline may lose, if another loses less


def mark_front(rows: list[Row]) -> None:
    """Set row["on_front"]: nothing measured on this target is both faster and more accurate."""
    measured = [r for r in rows if r.get("latency_ratio") and r["value"] is not None]
    for row in rows:
        row["on_front"] = row in measured and not any(_beats(o, row) for o in measured)


def _beats(a: Row, b: Row) -> bool:
    """At least as fast and as accurate, and better in one."""
    time, accuracy = a["latency_ratio"] - b["latency_ratio"], a["value"] - b["value"]
    return time <= 0 and accuracy >= 0 and (time < 0 or accuracy > 0)


def of(target: str, rows: list[Row], judged_by: str = "value") -> dict[str, Any]:
    """{"step", "lead", "rest", "detail", "text", "busy"} of a target's fastest compressed network.

    One that loses more than DEAR points is named only where all do.
    lead: the few words to be read first; detail: their interval; rest: what it costs, in parts
    judged_by: "value", or "sqnr_db" of a run without labels
    """
    compressed = [r for r in rows if not r["is_reference"]]
    timed = [r for r in compressed if r.get("latency_ratio")]
    if timed:
        cheap = [r for r in timed if r["points"] is None or r["points"] >= -DEAR]
        return _timed(target, min(cheap or timed, key=lambda r: r["latency_ratio"]))
    known = [r for r in compressed if r[judged_by] is not None]
    if known:
        return _untimed(target, min(known, key=lambda r: r.get("engine_bytes") or 0))
    return _nothing(target, compressed or rows)


def _timed(target: str, row: Row) -> dict[str, Any]:
    factor, spread = row["speedup"], row["speedup_spread"]
    if spread and spread[0] <= 1 <= spread[1]:
        lead = f"as fast as {row['reference']}"
    elif factor >= 1:
        lead = f"{words.times(factor)}× faster"
    else:
        lead = f"{words.times(1 / factor)}× slower"
        spread = row["spread"]
    return _said(target, row, lead, words.interval(spread))


def _untimed(target: str, row: Row) -> dict[str, Any]:
    made = _said(target, row, "not timed here", "")
    # What to do about it stands in the table.
    return {**made, "reason": str(row.get("reason") or "").partition("; ")[0]}


def _said(target: str, row: Row, lead: str, detail: str) -> dict[str, Any]:
    points = row["points"]
    price = (
        f"for {words.signed(points)} points of {row.get('judged_in', 'top-1')}"
        if points is not None
        else ""
    )
    if row["value"] is None and row.get("sqnr_db") is not None:
        price = f"at {words.decibel(row['sqnr_db'])} from float"
    if price and row.get("points_interval"):
        price += f" {words.interval(row['points_interval'])}"
    size = words.size(row.get("engine_bytes"))
    if row["smaller"]:
        size += f", {words.times(row['smaller'])}× smaller"
    rest = [p for p in (price, size) if p]
    text = " ".join(
        p for p in (f"{row['step']} is {lead} on {target}", detail, ", ".join(rest)) if p
    )
    return {
        "step": row["step"], "lead": lead, "detail": detail, "rest": rest, "text": text,
        "reason": "", "busy": bool(row.get("busy")),
    }  # fmt: skip


def _nothing(target: str, rows: list[Row]) -> dict[str, Any]:
    reasons = dict.fromkeys(str(r.get("reason") or r["status"]) for r in rows)
    failed = any(r["status"] == "failed" for r in rows)
    lead = "failed" if failed else "not run here"
    reason = "; ".join(reasons)
    return {
        "step": "", "lead": lead, "detail": "", "rest": [], "reason": reason,
        "text": f"{target}: {lead}: {reason}", "busy": False,
    }  # fmt: skip
