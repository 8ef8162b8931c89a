"""Channel counts between the widths that kernels like, and what that wastes.

    waste = t(w) - [ t(lo) + (M(w) - M(lo)) / (M(hi) - M(lo)) (t(hi) - t(lo)) ]

t is measured of a network of that one layer at its own width w and at the aligned widths below and
above, in turns; M counts multiply-accumulates. A kernel that pads channels to full blocks takes at
w what it takes at hi, and the waste is what a fair share of that would have saved. Where there is
no aligned width below, only a wider layer that is no slower counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import STATIC, TWIN, Finding
from edgecv.errors import EdgecvError
from edgecv.measuring.clock import Rounds
from edgecv.measuring.product import Product, widened
from edgecv.measuring.single_layer_graphs import trial

SHARE = 0.25  # of the budget that is left, for one layer
LEAST_WASTE = 0.1  # of the layer's own time
Channels = tuple[int, int]


@dataclass(frozen=True)
class Waste:
    """What a width wastes, as a share of the layer's time; low: the 95% interval's lower end.

    own_ms: what the twin of that width takes
    """

    share: float
    low: float
    own_ms: float


def check(case: Case) -> Iterator[Finding]:
    """Products off the target's alignment whose twin shows a waste."""
    if case.target is None:
        return
    align = case.target.alignment
    off = [p for p in case.products if neighbours(p, align) is not None]
    if not off:
        return
    off.sort(key=lambda p: -case.time_ms(p))
    if case.clock is None:
        yield _finding(case, off, align, None, STATIC)
        return
    known: dict[object, Waste | None] = {}
    for product in off:
        key = _geometry(case, product)
        if key not in known:
            known[key] = _waste(case, product, align)
    wastes = [(p, known[_geometry(case, p)]) for p in off]
    bad = [(p, w) for p, w in wastes if w and w.share >= LEAST_WASTE and w.low > 0.0]
    if bad:
        # without a profile the twin's own time, calling it included, stands for the layer's
        took = [case.time_ms(p) or w.own_ms for p, w in bad]
        cost = sum(w.share * ms for (_, w), ms in zip(bad, took, strict=True))
        low = sum(w.low * ms for (_, w), ms in zip(bad, took, strict=True))
        yield _finding(case, [p for p, _ in bad], align, (cost, low), TWIN)
        return
    seen = [p for p, w in wastes if w]
    if seen:
        yield _finding(case, seen, align, (0.0, 0.0), TWIN)


def _geometry(case: Case, product: Product) -> object:
    """What makes two layers take the same time."""
    return replace(product, layer="", unfused=""), _integer(case, product)


def neighbours(product: Product, align: int) -> tuple[Channels | None, Channels] | None:
    """(aligned widths below, above) of a product that is off; None for one that is not.

    The image's channels and the classes stay as they are; of grouped convolutions only depthwise
    ones are looked at.
    """
    depthwise = product.groups > 1 and product.groups == product.channels[0] == product.channels[1]
    if product.groups > 1 and not depthwise:
        return None
    free = [not fixed for fixed in product.fixed]
    if depthwise and not all(free):
        return None
    off = [f and c % align != 0 for f, c in zip(free, product.channels, strict=True)]
    if not any(off):
        return None
    lo = tuple(c - c % align if o else c for c, o in zip(product.channels, off, strict=True))
    hi = tuple(
        -(-c // align) * align if o else c for c, o in zip(product.channels, off, strict=True)
    )
    return ((lo[0], lo[1]) if all(lo) else None), (hi[0], hi[1])


def integer_gain(case: Case, products: Sequence[Product]) -> float | None:
    """Milliseconds that float products would take less in int8, by twins of both; None unknown."""
    if case.clock is None:
        return None
    total = 0.0
    for product in products:
        try:
            trials = [trial(product, case.engine, i, case.threads) for i in (False, True)]
            rounds = case.clock.rounds(trials, SHARE)
        except EdgecvError:
            return None
        if rounds is None:
            return None
        ratio = float(np.exp(np.median(np.log(rounds.ms[:, 1] / rounds.ms[:, 0]))))
        total += case.time_ms(product) * (1.0 - ratio)
    return total


def _integer(case: Case, product: Product) -> bool:
    row = case.ran(product)
    return row is not None and row.precision == "int8"


def _waste(case: Case, product: Product, align: int) -> Waste | None:
    found = neighbours(product, align)
    if found is None or case.clock is None:
        return None
    lo, hi = found
    widths = [product.channels, hi, *([lo] if lo else [])]
    twins = [widened(product, w) for w in widths]
    try:
        trials = [trial(t, case.engine, _integer(case, product), case.threads) for t in twins]
        rounds = case.clock.rounds(trials, SHARE)
    except EdgecvError:
        return None
    return None if rounds is None else wasted(rounds, [t.macs for t in twins])


def wasted(rounds: Rounds, macs: Sequence[int]) -> Waste:
    """From rounds of the layer at its own width, above, and (if there) below; MACs of each."""
    own, above = rounds.ms[:, 0], rounds.ms[:, 1]
    fair = above
    if len(macs) > 2:
        below = rounds.ms[:, 2]
        part = (macs[0] - macs[2]) / (macs[1] - macs[2])
        fair = below + part * np.maximum(above - below, 0.0)
    saved = rounds.saving(own, fair)
    return Waste(saved.ms / saved.shipped_ms, saved.low / saved.shipped_ms, saved.shipped_ms)


def _finding(
    case: Case, products: Sequence[Product], align: int,
    cost: tuple[float, float] | None, how: str,
) -> Finding:  # fmt: skip
    first = products[0]
    lo, hi = neighbours(first, align) or (None, first.channels)
    to = " or ".join("→".join(map(str, w)) for w in (lo, hi) if w)
    name = case.target.name if case.target else ""
    return Finding(
        "misaligned",
        f"{len(products)} layers have channel counts that are no multiple of {align}, which the "
        f"kernels of {name} work in: {first.layer} is {first.channels[0]}→{first.channels[1]}",
        case.dearest(products),
        cost[0] if cost else None,
        f"widths that are a multiple of {align}: {first.layer} as {to} "
        f"(`align: {align}` in prune, or the network's own widths)",
        how,
        (cost[1], 2 * cost[0] - cost[1]) if cost else None,
    )
