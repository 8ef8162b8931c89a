"""The point whose measured cost is what was asked for: the sum of layers is not the network.

    measured ≈ 1 - a (1 - modelled),   a from the last measurement;  bracket until within TOLERANCE

Between two neighbours of the path points beside it are looked at too: widths move in steps. Each
measurement is of the whole pruned network on the engine, beside the dense one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.pruning.frontier import Frontier, Point, Widths

TOLERANCE = 0.05
MOST = 8  # measurements


@dataclass(frozen=True)
class Fitted:
    """What was chosen, its measured share of the dense cost, and all that was measured.

    smallest: the point that has least, when even that is above what was asked for
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

    slow, fast, slope = 0, len(path) - 1, 1.0
    while len(tried) <= most and fast - slow > 1:
        index = _predicted(path, wanted, slope, slow, fast)
        found = at(path[index])
        if _off(found, wanted) <= TOLERANCE:
            break
        if path[index].cost < 0.999:
            slope = max(0.05, (1.0 - found) / (1.0 - path[index].cost))
        slow, fast = (index, fast) if found > wanted else (slow, index)
    best = min(tried.values(), key=lambda t: _off(t[1], wanted))
    if _off(best[1], wanted) > TOLERANCE:
        at(path[fast])
        for point in _beside(frontier, (path[slow], path[fast]), tried, wanted, slope):
            if len(tried) > most or _off(at(point), wanted) <= TOLERANCE:
                break
    point, measured = min(tried.values(), key=lambda t: _off(t[1], wanted))
    least = min(m for _, m in tried.values())
    return Fitted(point, measured, tuple(tried.values())[1:], least <= wanted * (1 + TOLERANCE))


def _predicted(path: Sequence[Point], wanted: float, slope: float, slow: int, fast: int) -> int:
    """The index between two known ones whose corrected cost is nearest to what is wanted."""
    between = range(slow + 1, fast)
    return min(between, key=lambda i: abs(1.0 - slope * (1.0 - path[i].cost) - wanted))


def _beside(
    frontier: Frontier,
    ends: Sequence[Point],
    tried: dict[Widths, tuple[Point, float]],
    wanted: float,
    slope: float,
) -> list[Point]:
    """Points beside the path that may hit it: near by the model, then by what they lose."""
    near = {p.widths: p for end in ends for p in frontier.around(end) if p.widths not in tried}
    off = {w: _off(1.0 - slope * (1.0 - p.cost), wanted) for w, p in near.items()}
    good = [p for p in near.values() if off[p.widths] <= TOLERANCE / 2 and math.isfinite(p.lost)]
    return sorted(good, key=lambda p: p.lost)[:3]


def _off(found: float, wanted: float) -> float:
    """By how much a cost misses, as a share."""
    return abs(found / wanted - 1.0)
