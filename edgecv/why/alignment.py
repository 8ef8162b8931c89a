"""Channel counts between the widths that kernels like, and what that wastes.

    waste = t(w) - [ t(lo) + (M(w) - M(lo)) / (M(hi) - M(lo)) (t(hi) - t(lo)) ]

t is measured of a network of that one layer at its own width w and at the aligned widths below and
above, in turns; M counts multiply-accumulates. A kernel that pads channels to full blocks takes at
w what it takes at hi, and the waste is what a fair share of that would have saved. Where there is
no aligned width below, only a wider layer that is no slower counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.errors import EdgecvError
from edgecv.why.case import Case
from edgecv.why.clock import Rounds
from edgecv.why.findings import STATIC, TWIN, Finding
from edgecv.why.twins import trial, widened
from edgecv.why.view import Product

SHARE = 0.25  # of the budget that is left, for one layer
LEAST_WASTE = 0.1  # of the layer's own time
Channels = tuple[int, int]


@dataclass(frozen=True)
class Waste:
    """What a width wastes, as a share of the layer's time; low: the 95% interval's lower end."""

    share: float
    low: float


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
    wasted, cost, low = [], 0.0, 0.0
    known: dict[object, Waste | None] = {}
    for product in off:
        shape = (product.kind, product.channels, product.size, product.kernel, product.strides,
                 product.groups, product.pads, _integer(case, product))  # fmt: skip
        if shape not in known:
            known[shape] = _waste(case, product, align)
        waste = known[shape]
        if waste is not None and waste.share >= LEAST_WASTE and waste.low > 0.0:
            wasted.append(product)
            cost += waste.share * case.time_ms(product)
            low += waste.low * case.time_ms(product)
    if wasted:
        yield _finding(case, wasted, align, (cost, low), TWIN)


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
    return Waste(saved.ms / saved.shipped_ms, saved.low / saved.shipped_ms)


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
