"""A row of results.json with what follows from it: value (its metric, 0..1), judged_in (how that is
called), its interval, speedup, points, reference, and sqnr_db and outputs, how far its outputs are
from float."""

from __future__ import annotations

from functools import cache

from edgecv import tasks
from edgecv.benchmark.statistics import wilson
from edgecv.limits import fidelity_of
from edgecv.report.folder import Row

# What a row may lack: it failed, or an older edgecv wrote it.
OPTIONAL = (
    "bundle", "metric", "latency_ms", "latency_ratio", "cpu_time_ratio", "cpu_time_ratio_interval",
    "engine_bytes", "memory_mb", "load_ms", "first_call_ms", "parity", "reason", "busy",
)  # fmt: skip
TOP1 = "top1"  # the metric of rows that do not name theirs


@cache
def metric_words() -> dict[str, str]:
    """How a table calls each task's metric."""
    known = (tasks.task(name) for name in tasks.names())
    return {task.metric: task.points for task in known if task.points}


def metric_of(row: Row) -> str:
    """The name of a row's metric."""
    return str((row.get("metric") or {}).get("name", TOP1))


def row_of(row: Row, rows: list[Row]) -> Row:
    """A row with what follows from it."""
    reference = _reference_name(row, rows)
    metric, value = row.get("metric") or {}, None
    samples, before = metric.get("samples"), metric.get("reference")
    if metric.get("value") is not None:
        value = float(metric["value"])
    out = {**dict.fromkeys(OPTIONAL), **row}
    out |= {"reference": reference, "is_reference": row["step"] == reference}
    out |= {"value": value, "value_interval": None, "points": None}
    out["judged_in"] = metric_words().get(metric_of(row), "top-1")
    if value is not None and samples and metric_of(row) == TOP1:
        out["value_interval"] = list(wilson(round(value * samples), int(samples)))
    if value is not None and before is not None:
        out["points"] = 100 * (value - float(before))
    out["more"] = {k: float(v) for k, v in (metric.get("more") or {}).items() if v is not None}
    kept = fidelity_of(row) or {}
    out |= {"sqnr_db": kept.get("sqnr_db"), "outputs": dict(kept.get("outputs") or {})}
    # Measured on a device that this machine reached, and not on this machine.
    there = (row.get("machine") or {}).get("cpu") or row.get("device")
    out["measured_on"] = there if row.get("device") else None
    if isinstance(memory := row.get("memory_mb"), dict):
        peak = memory.get("peak")
        out["memory_mb"] = peak if isinstance(peak, int | float) else None
    ratio, out["spread"] = row.get("latency_ratio"), row.get("latency_ratio_interval")
    out["speedup"] = 1 / ratio if ratio else None
    out["speedup_spread"] = [1 / v for v in reversed(out["spread"])] if out["spread"] else None
    same = [r for r in rows if (r["step"], r["target"]) == (reference, row["target"])]
    ours, theirs = row.get("engine_bytes"), same[0].get("engine_bytes") if same else None
    out["smaller"] = theirs / ours if ours and theirs else None
    return out


def _reference_name(row: Row, rows: list[Row]) -> str:
    """The step a row is compared with: as it says, else the target's first fp32 row."""
    if isinstance(row.get("reference"), str):
        return str(row["reference"])
    fp32 = [r for r in rows if r["precision"] == "fp32"]
    same = [r for r in fp32 if r["target"] == row["target"]] or fp32
    return str(same[0]["step"]) if same else ""
