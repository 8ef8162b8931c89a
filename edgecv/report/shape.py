"""What results.json and the store's facts must look like for a report or a gate to read them."""

from __future__ import annotations

from edgecv.runtime.shape import NUMBER, Every, wrong

__all__ = ["LAYER", "NUMBER", "PARITY", "RESULTS", "Every", "wrong"]

PAIR = [NUMBER, NUMBER]
PARITY = {
    "sqnr_db": NUMBER, "top1_agreement?": NUMBER, "cosine": NUMBER, "samples": int,
    "outputs?": Every(dict, {"sqnr_db": NUMBER}),
}  # fmt: skip
ROW = {
    **dict.fromkeys(("step", "target", "engine", "precision", "status"), str),
    **dict.fromkeys(("bundle?", "reason?", "reference?", "device?"), str),
    "machine?": {"cpu?": str},
    **dict.fromkeys(
        ("latency_ratio?", "cpu_time_ratio?", "engine_bytes?", "load_ms?", "first_call_ms?"), NUMBER
    ),
    "memory_mb?": (*NUMBER, dict),
    "busy?": bool,
    **dict.fromkeys(("latency_ratio_interval?", "cpu_time_ratio_interval?"), PAIR),
    "latency_ms?": dict.fromkeys(("p50", "p90", "p99"), NUMBER),
    "metric?": {
        "name?": str, "value": NUMBER, "samples": int, "reference?": NUMBER,
        "more?": Every(dict, NUMBER),
    },
    "parity?": {"graph?": PARITY, "compiled?": PARITY, "float?": PARITY},
}  # fmt: skip
NODE = {
    **dict.fromkeys(("id", "kind", "digest"), str),
    **dict.fromkeys(("step?", "target?", "action?"), str),
    "inputs": Every(dict, str),
    "seconds?": NUMBER,
}
MODEL = {
    "step": str,
    "summary?": str,
    "told?": str,
    "history": Every(list, str),
    "curve": Every(list, {"step": str}),
}
RECIPE = {
    **dict.fromkeys(("name?", "file?", "text?", "digest?"), str),
    "threads?": int,
    "settings?": Every(list, str),
    "only?": Every(list, str),
}
RESULTS = {
    "results": Every(list, ROW),
    "nodes?": Every(list, NODE),
    "models?": Every(list, MODEL),
    "recipe?": RECIPE,
    "machine?": dict,
    "versions?": Every(dict, (str, type(None))),
    "edgecv?": str,
}
LAYER = {
    **dict.fromkeys(("name?", "layer?", "op?", "precision?"), str),
    **dict.fromkeys(("time_ms?", "share?", "bytes?"), NUMBER),
}
