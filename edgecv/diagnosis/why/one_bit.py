"""Layers of one bit: whether they are counted here, and whether that is worth it.

no-kernels     the kernels that count bits are not built: the layers ran in floats
int8-as-fast   the same layers in int8 take no longer on this processor, measured layer by layer
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import PROFILE, TWIN, Finding
from edgecv.errors import EdgecvError
from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import trial

SHARE = 0.2  # of the budget that is left


def check(case: Case) -> Iterator[Finding]:
    """Every finding about layers of one bit."""
    if not case.counted or not case.layers:
        return
    if any(r.precision == "binary" for r in case.layers):
        yield from _as_fast(case)
    if any(r.precision == "binary" for r in case.layers) or not case.says.counts:
        return
    from edgecv.binary.library import CURE

    yield Finding(
        "no-kernels",
        f"{len(case.counted)} one-bit layers ran in floats: the binary kernels are not built here",
        tuple(p.layer for p in case.counted),
        sum(map(case.time_ms, case.counted)),
        CURE,
        PROFILE,
    )


def _as_fast(case: Case) -> Iterator[Finding]:
    """Each kind of layer beside an int8 one of the same shape."""
    kinds: dict[Product, list[Product]] = {}
    for product in case.counted:
        kinds.setdefault(replace(product, layer=""), []).append(product)
    if case.clock is None:
        return
    try:
        trials = [trial(kind, case.engine, True, case.threads) for kind in kinds]
        rounds = case.clock.rounds(trials, SHARE)
    except EdgecvError:
        return
    if rounds is None:
        return
    saved, layers = 0.0, []
    for products, int8 in zip(kinds.values(), np.median(rounds.ms, 0), strict=True):
        won = [case.time_ms(p) - float(int8) for p in products]
        saved += sum(w for w in won if w > 0)
        layers += [p.layer for p, w in zip(products, won, strict=True) if w > 0]
    if layers:
        yield Finding(
            "int8-as-fast",
            f"{len(layers)} of {len(case.counted)} one-bit layers take as long as int8 ones of "
            "their shape on this processor",
            tuple(layers),
            saved,
            "int8 in their place, which costs less accuracy (binarize: {layers: ...} names what is "
            "to have one bit)",
            TWIN,
        )
