"""Widths by importance lost for what they win: a path from the dense network to the smallest.

    next = argmax over groups g, narrower widths k  (cost(now) - cost(k)) / (lost(k) - lost(now))
    lost_g(k) = -S_g log(Σ best k scores / S_g),   S_g = Σ all scores

cost is the whole network's time by the table (or MACs, or bytes), so that narrowing a group counts
for every layer it runs through. lost is the sum of the scores that go while few go, and grows
without bound as nothing is left: first-order scores say nothing of emptying a layer. Widths are
multiples of the alignment; a step that wins less than LEAST of the dense cost is not taken, so that
a layer whose narrowing wins no time is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Widths = tuple[int, ...]
Cost = Callable[[Widths], float]
LEAST = 0.002
JUMP = 6  # narrower widths looked at in one step: over plateaus of the engine
MOST = 32  # widths of one group


@dataclass(frozen=True)
class Point:
    """Widths of the groups; cost by the model, as a share of the dense network's; what is lost."""

    widths: Widths
    cost: float
    lost: float


class Frontier:
    """All that can be chosen.

    options: widths of each group, ascending, the full one last
    least:   of the dense cost that a step has to win; above 0 where the cost was measured
    """

    def __init__(
        self,
        scores: Sequence[Tensor],
        options: Sequence[Sequence[int]],
        cost: Cost,
        least: float = LEAST,
    ) -> None:
        self.least = least
        self.options, self._cost = [list(o) for o in options], cost
        self.full: Widths = tuple(len(score) for score in scores)
        self._dense = cost(self.full)
        self._lost: list[list[float]] = [losses(score).tolist() for score in scores]

    def point(self, widths: Widths) -> Point:
        lost = sum(own[w] for own, w in zip(self._lost, widths, strict=True))
        return Point(widths, self._cost(widths) / self._dense, lost)

    def path(self) -> list[Point]:
        """From the dense network on, each step narrows one group."""
        points = [self.point(self.full)]
        while True:
            now = points[-1]
            steps = [
                (p, (now.cost - p.cost) / max(p.lost - now.lost, 1e-12))
                for p in self._narrower(now.widths)
                if now.cost - p.cost > self.least
            ]
            if not steps:
                return points
            points.append(max(steps, key=lambda s: s[1])[0])

    def around(self, point: Point) -> list[Point]:
        """The points that differ by one step of one group, or of one up and another down."""
        singles = [self.point(w) for w in self._steps(point.widths)]
        doubles = {w for s in singles for w in self._steps(s.widths)} - {point.widths}
        return singles + [self.point(w) for w in sorted(doubles)]

    def _narrower(self, widths: Widths) -> list[Point]:
        return [
            self.point((*widths[:g], width, *widths[g + 1 :]))
            for g, options in enumerate(self.options)
            for width in options[: options.index(widths[g])][-JUMP:]
        ]

    def _steps(self, widths: Widths) -> list[Widths]:
        found = []
        for g, options in enumerate(self.options):
            place = options.index(widths[g])
            for other in options[max(0, place - 1) : place + 2]:
                if other != widths[g]:
                    found.append((*widths[:g], other, *widths[g + 1 :]))
        return found


def losses(score: Tensor) -> Tensor:
    """lost(k) for k = 0 ... width: infinite at 0; float (width + 1,)."""
    best = score.double().clamp_min(0).sort(descending=True).values + 1e-12
    total = best.sum()
    kept = torch.cat([torch.zeros(1, dtype=torch.double), best.cumsum(0)])
    return -total * (kept / total).clamp(0.0, 1.0).log()


def options(widths: Widths, align: int) -> list[list[int]]:
    """Multiples of the alignment that are not wider, and the width itself; MOST or so of each."""
    steps = [align * -(-w // (align * MOST)) for w in widths]
    return [sorted({*range(s, w, s), w}) for w, s in zip(widths, steps, strict=True)]
