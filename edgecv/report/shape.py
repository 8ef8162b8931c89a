"""What results.json and the store's facts must look like for the report to read them.

A shape is a type, a tuple of types, a list of shapes (of that length), a dict of shapes, or Every
(a list of any length, a dict of any keys). A key that ends in "?" may be absent or null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)


@dataclass(frozen=True)
class Every:
    """A list whose items, or a dict whose values, all have one shape."""

    container: type
    shape: Any


PAIR = [NUMBER, NUMBER]
PARITY = {"sqnr_db": NUMBER, "top1_agreement": NUMBER, "cosine": NUMBER, "samples": int}
ROW = {
    **dict.fromkeys(("step", "target", "engine", "precision", "status"), str),
    **dict.fromkeys(("bundle?", "reason?", "reference?", "device?"), str),
    "machine?": {"cpu?": str},
    **dict.fromkeys(
        ("latency_ratio?", "cpu_time_ratio?", "engine_bytes?", "load_ms?", "first_call_ms?"), NUMBER
    ),
    "memory_mb?": (*NUMBER, dict),
    **dict.fromkeys(("latency_ratio_interval?", "cpu_time_ratio_interval?"), PAIR),
    "latency_ms?": dict.fromkeys(("p50", "p90", "p99"), NUMBER),
    "metric?": {"value": NUMBER, "samples": int, "reference?": NUMBER},
    "parity?": {"graph?": PARITY, "compiled?": PARITY},
}  # fmt: skip
NODE = {
    **dict.fromkeys(("id", "kind", "digest"), str),
    **dict.fromkeys(("step?", "target?", "action?"), str),
    "inputs": Every(dict, str),
    "seconds?": NUMBER,
}
MODEL = {
    "step": str,
    "history": Every(list, str),
    "curve": Every(list, {"step": str, "top1": NUMBER}),
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


def wrong(value: Any, shape: Any, where: str = "") -> str:
    """Where the value is not of that shape, and what it is instead; "" when it fits."""
    if isinstance(shape, Every):
        if not isinstance(value, shape.container):
            return _not(value, where)
        inside: Any = value
        items = inside.items() if shape.container is dict else enumerate(inside)
        return _first(wrong(v, shape.shape, _at(where, k)) for k, v in items)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _not(value, where)
        return _first(_key(value, key, inner, where) for key, inner in shape.items())
    if isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape):
            return _not(value, where)
        pairs = zip(value, shape, strict=True)
        return _first(wrong(v, s, _at(where, i)) for i, (v, s) in enumerate(pairs))
    flag = isinstance(value, bool) and shape is not bool
    return _not(value, where) if flag or not isinstance(value, shape) else ""


def _key(value: dict[str, Any], key: str, shape: Any, where: str) -> str:
    name = key.rstrip("?")
    if value.get(name) is None:
        return "" if key.endswith("?") else f"{where or 'it'} has no {name!r}"
    return wrong(value[name], shape, _at(where, name))


def _at(where: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{where}[{key}]"
    return f"{where}.{key}" if where else str(key)


def _not(value: Any, where: str) -> str:
    return f"{where or 'it'} cannot be {str(value)[:40]!r}"


def _first(found: Any) -> str:
    return next(filter(None, found), "")
