"""Requested against executed precision: what ran in float in a network that was to be int8.

s8s8           signed activations, which ONNX Runtime does not fuse on x86
left-in-float  layers whose inputs and weights the file does not quantize
kept-float     the same, of layers that `quantize` was told, or found, to keep in float
not-fused      layers that the file quantizes and the engine runs in float all the same
weight-only    weights of few bits for layers that compute in float: bytes, not time
no-vnni        the processor has no integer dot product
no-bf16        the processor does not compute in bf16, which was asked for
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecv.benchmark.machine import INTEGER_DOT
from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import MENDED, PROFILE, STATIC, TWIN, Finding, named
from edgecv.measuring.clock import Saving
from edgecv.measuring.product import Product

SMALL = ("int4", "uint4", "int2", "uint2", "int8", "uint8")


def check(case: Case) -> Iterator[Finding]:
    """Every finding about precision."""
    if case.precision == "int8":
        signed = [p for p in case.products if p.activations == "int8" and p.weights]
        if signed and case.says.unsigned and case.x86:
            yield _signed(case, signed)
        yield from _in_float(case)
        yield from _no_dot_product(case)
    yield from _no_bf16(case)
    yield from _weight_only(case)


def in_float(case: Case) -> list[Product]:
    """Products of an int8 bundle that did not run in int8; from the file where nothing ran."""
    if not case.layers:
        return [p for p in case.products if not p.integer]
    ran = [(p, case.ran(p)) for p in case.products]
    return [p for p, row in ran if row is not None and row.precision != "int8"]


def _signed(case: Case, products: Sequence[Product]) -> Finding:
    saved = case.saving(lambda view: view.unsigned())
    floats = [p for p in in_float(case) if p in products]
    ran = f"{len(floats)} of {len(products)} such layers ran in float"
    ms, how = (saved.ms, MENDED) if saved else (None, STATIC)
    if saved is None and case.layers:
        ms, how = sum(map(case.time_ms, floats)), PROFILE
    return Finding(
        "s8s8",
        f"activations are signed (s8) and {case.says.label} fuses s8 x s8 into no integer kernel "
        f"on x86: {ran if case.layers else 'not run here'}",
        case.dearest(products),
        ms,
        "unsigned activations: `grid: {activations: uint8}` in the target's profile, as the "
        "profiles cpu and x86-* have it, and export again",
        how,
        _bounds(saved),
    )


def _in_float(case: Case) -> Iterator[Finding]:
    found = in_float(case)
    if case.says.unsigned and case.x86:
        found = [p for p in found if p.activations != "int8"]
    left = [p for p in found if not p.integer]
    meant = set(case.manifest.get("keep_float", ()))
    kept = [p for p in left if p.layer in meant]
    left = [p for p in left if p.layer not in meant]
    if kept:
        what = (
            f"{_layers(kept)} in float: kept so by the recipe or the search (keep_float), or the "
        )
        what += "last product, whose answers are float"
        yield _to_integers(case, "kept-float", what, kept, "nothing, where accuracy asks for it; "
                           "else take them out of keep_float")  # fmt: skip
    if left:
        what = f"{_layers(left)} in float in an int8 network"
        yield _to_integers(case, "left-in-float", what, left, "quantize them too: take them out of "
                           "the layers that are kept in float (exclusions of quantize), or ship "
                           "them so knowingly, for their accuracy")  # fmt: skip
    other = [p for p in found if p.integer]
    for reason in dict.fromkeys(p.unfused for p in other):
        group = [p for p in other if p.unfused == reason]
        what = f"{_layers(group)} in float although quantized: {reason or 'no reason in the file'}"
        yield _to_integers(case, "not-fused", what, group, _cure(reason))


def _cure(reason: str) -> str:
    if "float output" in reason or "output is not quantized" in reason:
        return (
            "quantize the layer's output (Q/DQ behind its ReLU or directly behind it), or use an "
            "activation that fuses: ReLU or ReLU6"
        )
    if "ReLU" in reason:
        return (
            "an asymmetric grid for that activation (the zero point at the grid's least value), as "
            "edgecv's quantizer sets it for this target"
        )
    if "weight" in reason:
        return "a constant, quantized weight: fold what computes it before the export"
    return "quantize with edgecv's grid for this target, and look at the graph around the layer"


def _to_integers(
    case: Case, kind: str, what: str, products: Sequence[Product], change: str
) -> Finding:
    """A finding whose cost is that of running those layers in integers as well."""
    layers, how = {p.layer for p in products}, MENDED
    saved = case.saving(lambda view: view.in_integers(layers, case.feeds))
    ms = saved.ms if saved else None
    if ms is None:
        from edgecv.diagnosis.why.alignment import integer_gain

        ms, how = integer_gain(case, products), TWIN
    if ms is None:
        ms, how = sum(map(case.time_ms, products)), PROFILE
    ms, how = (ms, how) if case.layers else (None, STATIC)
    return Finding(kind, what, case.dearest(products), ms, change, how, _bounds(saved))


def _no_dot_product(case: Case) -> Iterator[Finding]:
    if not case.layers or INTEGER_DOT & set(case.features):
        return
    grid = case.manifest.get("grid") or {}
    saturates = case.says.saturates and case.x86 and not grid.get("reduce_range")
    what = (
        "this processor has no integer dot product (VNNI, DotProd): int8 is little faster than fp32"
    )
    if saturates:
        what += ", and u8 x s8 sums of full 8-bit weights saturate in 16 bits there: answers change"
    change = "fp32 or fp16"
    if saturates:
        change = "a target with `grid: {reduce_range: true}` (x86-avx2, or cpu, exported here)"
    yield Finding("no-vnni", what, (), None, change, STATIC, wrong=saturates)


def _no_bf16(case: Case) -> Iterator[Finding]:
    if case.precision != "bf16" or any(row.precision == "bf16" for row in case.layers):
        return
    if case.layers:
        what = "asked for bf16, and this processor computes none of it: what ran is fp32"
        change = "a processor with AVX-512-BF16 or AMX; here int8, or fp16 for the bytes"
        yield Finding("no-bf16", what, (), None, change, STATIC, wrong=True)


def _weight_only(case: Case) -> Iterator[Finding]:
    packed = [p for p in case.products if p.activations == "float32" and p.weights in SMALL]
    if not packed:
        return
    saved = case.saving(lambda view: view.unpacked())
    kinds = ", ".join(sorted({p.weights for p in packed}))
    yield Finding(
        "weight-only",
        f"weights of {_layers(packed, '')} are {kinds} and what they meet is float: unpacked in "
        "every call, they save bytes and no time",
        case.dearest(packed),
        saved.ms if saved else None,
        "float weights for time, or int8 activations too (quantize: {precision: int8})",
        MENDED if saved else STATIC,
        _bounds(saved),
    )


def _bounds(saved: Saving | None) -> tuple[float, float] | None:
    return (saved.low, saved.high) if saved else None


def _layers(products: Sequence[Product], verb: str = " ran") -> str:
    names = list(dict.fromkeys(p.layer for p in products))
    return f"{named(names, 1)}{verb}" if len(names) == 1 else f"{len(names)} layers{verb}"
