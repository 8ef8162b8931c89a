"""The point whose measured cost is what was asked for: the sum of layers is not the network.

    log measured ≈ linear in what is modelled, between the nearest slower and faster network

Where two steps in a row move the same end, the next is halfway. Between two neighbours of the path
points beside it are looked at too: widths move in steps. Each measurement is of the whole pruned
network on the engine, beside the dense one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.methods.pruning.frontier import Frontier, Point, Widths

TOLERANCE = 0.05
MOST = 8  # measurements


@dataclass(frozen=True)
class Fitted:
    """What was chosen, its measured share of the dense cost, and all that was measured.

    attainable: whether anything that was measured costs no more than was asked for
    """

    point: Point
    measured: float
    tried: tuple[tuple[Point, float], ...]
    attainable: bool

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "widths": list(p.widths), "modelled": round(p.cost, 4), "measured": round(m, 4),
                "lost": float(f"{p.lost:.4g}"), "chosen": p is self.point,
            }
            for p, m in self.tried
        ]  # fmt: skip


def fit(
    frontier: Frontier, wanted: float, measure: Callable[[Widths], float], most: int = MOST
) -> Fitted:
    """The point of the frontier whose measured cost is nearest to `wanted` (a share of dense).

    measure: of widths, as a share of the dense network's cost
    """
    path = frontier.path()
    tried: dict[Widths, tuple[Point, float]] = {path[0].widths: (path[0], 1.0)}

    def at(point: Point) -> float:
        if point.widths not in tried:
            tried[point.widths] = (point, measure(point.widths))
        return tried[point.widths][1]

    slow, fast, moved = 0, len(path) - 1, 0  # moved: how often in a row the same end did
    while len(tried) <= most and fast - slow > 1:
        ends = [(path[i].cost, tried.get(path[i].widths, (None, None))[1]) for i in (slow, fast)]
        cost = (path[slow].cost + path[fast].cost) / 2 if abs(moved) > 1 else _cost(ends, wanted)
        index = min(range(slow + 1, fast), key=lambda i: abs(path[i].cost - cost))
        found = at(path[index])
        if _off(found, wanted) <= TOLERANCE:
            break
        moved = max(moved, 0) + 1 if found > wanted else min(moved, 0) - 1
        slow, fast = (index, fast) if found > wanted else (slow, index)
    if all(_off(m, wanted) > TOLERANCE for _, m in list(tried.values())[1:]):
        ends = [(path[i].cost, at(path[i])) for i in (slow, fast)]
        for point in _beside(frontier, (path[slow], path[fast]), tried, _cost(ends, wanted)):
            if len(tried) > most or _off(at(point), wanted) <= TOLERANCE:
                break
    pruned = list(tried.values())[1:] or list(tried.values())
    point, measured = min(pruned, key=lambda t: _off(t[1], wanted))
    least = min(m for _, m in pruned)
    return Fitted(point, measured, tuple(tried.values())[1:], least <= wanted * (1 + TOLERANCE))


def _cost(ends: Sequence[tuple[float, float | None]], wanted: float) -> float:
    """The modelled cost at which the measure is likely to be what is wanted.

    ends: (modelled, measured) of the slower and of the faster end; the latter may be unknown
    """
    (high, slow), (low, fast) = ends
    assert slow is not None
    if fast is None or fast >= slow:
        slope = (1.0 - slow) / (1.0 - high) if high < 0.999 else 1.0
        return 1.0 - (1.0 - wanted) / max(slope, 0.05)
    return high + (low - high) * math.log(wanted / slow) / math.log(fast / slow)


def _beside(
    frontier: Frontier,
    ends: Sequence[Point],
    tried: dict[Widths, tuple[Point, float]],
    cost: float,
) -> list[Point]:
    """Points beside the path that may hit it: near by the model, then by what they lose."""
    near = {p.widths: p for end in ends for p in frontier.around(end) if p.widths not in tried}
    good = [p for p in near.values() if _off(p.cost, cost) <= TOLERANCE / 2]
    return sorted((p for p in good if math.isfinite(p.lost)), key=lambda p: p.lost)[:3]


def _off(found: float, wanted: float) -> float:
    """By how much a cost misses, as a share."""
    return abs(found / wanted - 1.0)
