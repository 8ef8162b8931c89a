"""Layers that cost the task most in integers, each by itself: they stay float where that pays.

    lost_l = 1 - fidelity(f(x; q_l for f_l))     q_l: layer l in integers, fed the float tensors

The fidelity is the task's own metric against what the float network says (`task_fidelity`), on a
few images. Where the result's own grid is what harms, whatever reads it stays float too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgecv.bundling.task_fidelity import TaskFidelity, stacked
from edgecv.diagnosis.parity.layers import Layer, Sample
from edgecv.diagnosis.parity.matching import Pair
from edgecv.graph import Graph
from edgecv.methods.quantize.harm import Harm, Known, Progress, blamed_names, forms, paired, runs
from edgecv.methods.quantize.mixed import Problem

FEW = 6  # images that each layer is judged on
LEAST = 0.02  # of the metric: a layer that loses less is left alone
WORST = 0.5  # of what the worst loses: layers that lose as much go with it
HARMLESS = 0.999  # of the metric, where a layer loses nothing on the first image
TOLD = 3  # layers of which all is said


@dataclass(frozen=True)
class Costly:
    """layer: as `edgecv bench --profile` calls it. lost: of the metric, 0..1. keep: names that
    `keep_float` takes, the layer's and, where its result's grid is what harms, its readers'."""

    layer: str
    lost: float
    keep: tuple[str, ...]
    points: str

    def __str__(self) -> str:
        others = ", ".join(repr(n) for n in self.keep if n != self.layer)
        also = f", and so do {others}" if others else ""
        return (
            f"layer {self.layer!r} in int8 alone loses {100 * self.lost:.1f} of 100 {self.points} "
            f"against float's own answers: it stays float{also}"
        )


def why_float(found: Sequence[Costly]) -> list[str]:
    """What is said of all that stays float, in the order of the harm: few sentences."""
    order = sorted(found, key=lambda layer: -layer.lost)
    first, rest = order[:TOLD], order[TOLD:]
    if len(rest) <= 1:
        return [str(layer) for layer in order]
    names = ", ".join(repr(layer.layer) for layer in rest)
    return [
        *map(str, first),
        f"{len(rest)} more layers stay float, each alone loses {100 * rest[-1].lost:.1f} to "
        f"{100 * rest[0].lost:.1f} of 100 {rest[0].points}: {names}",
    ]


def costly(
    floats: bytes,
    made: Graph,
    xs: Sequence[Sample],
    asked: TaskFidelity,
    known: Known,
    progress: Progress = lambda *_: None,
) -> list[Costly]:
    """The layers of `made` that lose LEAST or more, and nearly as much as the worst; in order.

    floats: the float file that was quantized, its channels evened out where `made`'s are.
    xs: float32 (1, C, H, W), normalised; the first few are used. known: what was found before of
    the same floats and images, filled here. progress: as `far_off` takes it
    """
    with _alone(floats, made, xs, asked) as look:
        if look is None:
            return []
        lost = look.lost(known, progress)
        most = max(lost.values(), default=0.0)
        wrong = [t for t in lost if lost[t] >= max(LEAST, WORST * most)]
        coarse = {t for t in wrong if look.rounding(t) >= WORST * lost[t]}
    found = []
    for t in wrong:
        if t in coarse or not coarse.intersection(look.pairs[t].b.inputs):
            layer, keep = blamed_names(look.pairs[t], t in coarse, look.layers)
            found.append(Costly(layer, lost[t], keep, asked.task.points))
    return found


def problem(
    floats: bytes,
    made: Graph,
    xs: Sequence[Sample],
    asked: TaskFidelity,
    progress: Progress = lambda *_: None,
) -> Problem:
    """What each layer's integers and each result's grid lose, for the integer program; costs in
    time are left empty. Arguments as of `costly`."""
    weights: dict[str, float] = {}
    results: dict[str, float] = {}
    touching: dict[str, tuple[str, ...]] = {}
    with _alone(floats, made, xs, asked) as look:
        if look is None:
            return Problem({}, {}, {}, {})
        for t, lost in look.lost({}, progress).items():
            grid = min(lost, look.rounding(t)) if lost > 0.0 else 0.0
            layer, keep = blamed_names(look.pairs[t], grid > 0.0, look.layers)
            weights[layer] = weights.get(layer, 0.0) + lost - grid
            if grid > 0.0:
                results[t], touching[t] = grid, keep
    for name in {name for names in touching.values() for name in names}:
        weights.setdefault(name, 0.0)
    return Problem(weights, results, touching, {})


@dataclass(frozen=True)
class _Alone:
    """Every layer that has integers, by its tensor's name; layers: of the float file."""

    pairs: dict[str, Pair]
    layers: Sequence[Layer]
    harm: Harm

    def lost(self, known: Known, progress: Progress) -> dict[str, float]:
        left = self.harm.of(self.pairs, known, progress)
        return {t: max(0.0, 1.0 - value) for t, value in left.items()}

    def rounding(self, tensor: str) -> float:
        """What the grid of the layer's result alone loses."""
        return max(0.0, 1.0 - self.harm.rounding(self.pairs[tensor]))


@contextmanager
def _alone(
    floats: bytes, made: Graph, xs: Sequence[Sample], asked: TaskFidelity
) -> Iterator[_Alone | None]:
    """None where float finds nothing on the first few, or nothing has integers."""
    with forms(floats, made) as (a, b):
        pairs, few = paired(a, b), xs[:FEW]
        refs = [a.answers(x) for x in few]
        on, taken = asked.on(stacked(refs)), list(runs(a, b, pairs, few))
        if on is None or not taken:
            yield None
            return
        held = {t: p for t, p in pairs.items() if t in taken[0][2]}
        harm = Harm(a, taken, refs, lambda said: on.score(stacked(said)), HARMLESS)
        yield _Alone(held, a.layers, harm)
