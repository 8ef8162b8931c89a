"""Nodes that compute nothing: transpositions, conversions and layouts, and what they cost.

    transpose    in the file itself; the same graph without their copying, measured
    conversions  quantize and dequantize between layers, because something there runs in float
    reorders     layouts that the engine changes between layers (blocked to plain and back)

The network's own ends are left out: an image has to come in and logits to go out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import LEAST_SHARE, MENDED, PROFILE, STATIC, Finding
from edgecv.diagnosis.why.precision import in_float
from edgecv.runtime.spec import Layer

CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE", "Convert"))
REORDERS = frozenset(("ReorderInput", "ReorderOutput", "Reorder"))


def check(case: Case) -> Iterator[Finding]:
    """Every finding about nodes that only move data; between one-bit layers they belong there."""
    if case.view and case.view.counted:
        return
    turned = list(_transposes(case))
    yield from turned
    if case.layers and case.precision == "int8":
        yield from _conversions(case)
    if not any(f.ms and f.ms > 0 for f in turned):  # around a transposition they are its work
        yield from _reorders(case)


def _transposes(case: Case) -> Iterator[Finding]:
    view = case.view
    if view is None or not view.transposes:
        return
    saved = case.saving(lambda view: view.without_transposes())
    places = list(dict.fromkeys(t.place for t in view.transposes))
    ms, how = (saved.ms, MENDED) if saved else (None, STATIC)
    if saved is None and case.layers:
        names = {t.name for t in view.transposes}
        ms, how = sum(r.time_ms or 0.0 for r in case.layers if r.name in names), PROFILE
    yield Finding(
        "transpose",
        f"{len(view.transposes)} transposition(s) in the file, {places[0]}"
        + (f" and in {len(places) - 1} more places" if len(places) > 1 else ""),
        tuple(places),
        ms,
        "write the network without permute()/transpose() there, and pool with "
        "adaptive_avg_pool2d(x, 1).flatten(1), not x.mean((2, 3)); export it again",
        how,
        (saved.low, saved.high) if saved else None,
    )


def _conversions(case: Case) -> Iterator[Finding]:
    """Only where no product in float explains them: those have findings of their own."""
    rows = [r for r in _inside(case.layers) if _word(r) in CONVERSIONS]
    if not rows or in_float(case):
        return
    floats = [r for r in _inside(case.layers) if r.precision == "fp32"]
    names = list(dict.fromkeys(f"{_word(r)} {r.layer or r.name}".strip() for r in floats))
    cause = f": {names[0]} runs in float" if names else ""
    yield Finding(
        "conversions",
        f"{len(rows)} quantize and dequantize steps between layers{cause}",
        tuple(names) or tuple(r.name for r in rows),
        sum(r.time_ms or 0.0 for r in (*rows, *floats)),
        "an operator that the engine has in int8 (ReLU, Add, pooling) in its place, or all of "
        "that part in float",
        PROFILE,
    )


def _reorders(case: Case) -> Iterator[Finding]:
    """Between the first product and the last; around float layers they belong to those."""
    if case.precision == "int8" and in_float(case):
        return
    names = {p.layer for p in case.products}
    places = [i for i, r in enumerate(case.layers) if r.precision and r.layer in names]
    between = case.layers[places[0] : places[-1]] if places else ()
    rows = [r for r in between if _word(r) in REORDERS]
    total = sum(r.time_ms or 0.0 for r in rows)
    if not rows or total < LEAST_SHARE * (case.call_ms or 0.0):
        return
    yield Finding(
        "reorders",
        f"the engine changes the layout {len(rows)} time(s) between layers",
        tuple(r.layer or r.name for r in rows),
        total,
        "channel counts that are a multiple of the target's alignment, so that one layout "
        "serves all layers",
        PROFILE,
    )


def _inside(layers: Sequence[Layer]) -> list[Layer]:
    """Rows from the first layer that computes to the last."""
    places = [i for i, r in enumerate(layers) if r.precision]
    return list(layers[places[0] : places[-1] + 1]) if places else []


def _word(row: Layer) -> str:
    return row.op.partition(" ")[0]
