"""Every quantized layer beside its float self, on a few real images: what is far off stays float.

    own_l     = SQNR(f_l, q_l)                  q_l: layer l in integers, fed the float tensors
    answers_l = SQNR(f(x), f(x; q_l for f_l))   what that alone does to the network's answers

A layer is far off where answers_l < ANSWERS_DB and own_l < OWN_DB: the first says that it matters
(a gate that hardly moves, a map of zeros, what nobody reads may be as coarse as they like),
the second that its integers do not hold what it computes: a scale that is wrong, an outlier that
leaves the rest no levels. One channel's outlier shows in the answers alone: where the whole integer
network is too far from float, every layer is looked at by its answers_l.

Where the result's own grid is what harms, whatever reads it would put it on that grid again, and
stays float too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.bundling.inference import Answers
from edgecv.diagnosis.parity.layers import Sample
from edgecv.diagnosis.parity.matching import Pair
from edgecv.fidelity import BEST_DB, INT8_ROUNDING
from edgecv.graph import Graph
from edgecv.methods.quantize.harm import Harm, Known, Progress, blamed_names, forms, paired, runs
from edgecv.runtime.fidelity import Energy, compare_all, kinds
from edgecv.runtime.spec import joined

IMAGES, FEW = 8, 4  # FEW: of those, where every layer's harm is measured by itself
OWN_DB, ANSWERS_DB = 10.0, 20.0
HARMLESS_DB = 20.0  # more than ANSWERS_DB: 6 for images that are not run, the rest to be sure
TOLD = 3  # layers of which all is said
DOMINANT_DB = 6.0  # of a network that is too far off, layers this near to the worst go first


@dataclass(frozen=True)
class FarOff:
    """layer: as `edgecv bench --profile` calls it. keep: names that `keep_float` takes, the layer's
    and, where its result's grid is what harms, those of what reads it."""

    layer: str
    own_db: float
    answers_db: float
    keep: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"layer {self.layer!r} in int8 is {self.own_db:.1f} dB from its float self and alone "
            f"leaves the network {self.answers_db:.1f} dB"
        )

    @property
    def kept(self) -> str:
        """What was done about it."""
        others = ", ".join(repr(n) for n in self.keep if n != self.layer)
        return f"{self}: it stays float{f', and so do {others}' if others else ''}"


def kept(found: Sequence[FarOff]) -> list[str]:
    """What is said of all that stays float, in the order of the harm: few sentences."""
    order = sorted(found, key=lambda layer: layer.answers_db)
    told, rest = order[:TOLD], order[TOLD:]
    if len(rest) <= 1:
        return [layer.kept for layer in order]
    names, least = ", ".join(repr(layer.layer) for layer in rest), rest[0].answers_db
    return [
        *(layer.kept for layer in told),
        f"{len(rest)} more layers stay float, each alone leaves the network between {least:.1f} "
        f"and {rest[-1].answers_db:.1f} dB: {names}",
    ]


def far_off(
    floats: bytes,
    made: Graph,
    xs: Sequence[Sample],
    least_db: float,
    last: bool = False,
    known: Known | None = None,
    progress: Progress = lambda *_: None,
) -> list[FarOff]:
    """The layers of `made` that are far off, in order.

    floats: the float file that was quantized, its channels evened out where `made`'s are.
    xs: float32 (1, C, H, W), normalised; the first few are used.
    least_db: what the whole of `made` is to answer; below it every layer is suspected
    last: nobody asks again: where the whole is too far off, all that must be float for least_db
    known: what was found before of the same floats and images, filled here: a layer whose integers
        are what they were is not measured again
    progress: called with how many of the suspects were looked at, and how many there are
    """
    ends, bounds = kinds(made.outputs), made.bounds
    with forms(floats, made) as (a, b):
        pairs = paired(a, b)
        own = _own_db(a, b, pairs, xs[:IMAGES])
        refs = [a.answers(x) for x in xs[:IMAGES]]
        outs = [b.answers(x) for x in xs[:IMAGES]]
        near = _compared(refs, outs, ends, bounds) >= least_db
        suspects = {t: pairs[t] for t, db in own.items() if db < OWN_DB or not near}
        if not suspects:
            return []
        runs_few, few = list(runs(a, b, suspects, xs[:FEW])), refs[:FEW]
        harmed = Harm(
            a, runs_few, few, lambda said: _compared(few, said, ends, bounds),
            ANSWERS_DB + HARMLESS_DB,
        )  # fmt: skip
        harm = harmed.of(suspects, {} if known is None else known, progress)
        most = min(harm.values()) + DOMINANT_DB
        wrong = [t for t in suspects if harm[t] < ANSWERS_DB and (harm[t] < most or near)]
        if last and not near:
            wrong = [t for t in suspects if t in {*wrong, *_dearest(harm, least_db)}]
        coarse = {t for t in wrong if harmed.rounding(pairs[t]) < ANSWERS_DB}
    blamed = [t for t in wrong if t in coarse or not coarse.intersection(pairs[t].b.inputs)]
    found = []
    for t in blamed:
        layer, keep = blamed_names(pairs[t], t in coarse, a.layers)
        found.append(FarOff(layer, own[t], harm[t], keep))
    return found


def whole_db(floats: bytes, made: Graph, xs: Sequence[Sample]) -> float:
    """dB of `made`'s worst output on those images that `far_off` judges it by."""
    with forms(floats, made) as (a, b):
        refs, outs = ([form.answers(x) for x in xs[:IMAGES]] for form in (a, b))
    return _compared(refs, outs, kinds(made.outputs), made.bounds)


def _dearest(harm: Mapping[str, float], least_db: float) -> list[str]:
    """The layers without which half of the noise of least_db is left: noises add up."""
    noise = {t: 10 ** (-db / 10) for t, db in harm.items()}
    left, found = sum(noise.values()), []
    for t in sorted(noise, key=lambda t: -noise[t]):
        if left <= 0.5 * 10 ** (-least_db / 10):
            break
        left -= noise[t]
        found.append(t)
    return found


def _own_db(a: Any, b: Any, pairs: Mapping[str, Pair], xs: Sequence[Sample]) -> dict[str, float]:
    """How far each layer that has integers is from its float self, by its tensor's name in b."""
    sums: dict[str, Energy] = {}
    for _, given, own in runs(a, b, pairs, xs):
        for tensor, values in own.items():
            ref = given[tensor]
            sums.setdefault(tensor, Energy()).add(ref, values.reshape(ref.shape))
    return {t: sums[t].sqnr_db for t in pairs if t in sums}


def _compared(
    refs: Sequence[Answers],
    outs: Sequence[Answers],
    ends: Mapping[str, str],
    bounds: Mapping[str, float],
) -> float:
    """dB of the worst output that is off by more than rounding of the range it has (`bounds`).

    refs, outs: the float network's answers and others, by image
    """
    before, after = (
        [joined(column) for column in zip(*rows, strict=True)] for rows in (refs, outs)
    )
    found = compare_all(before, after, ends)
    return min(
        BEST_DB if one.max_abs_error <= INT8_ROUNDING * bounds.get(name, 0.0) else one.sqnr_db
        for name, one in (found.outputs or {next(iter(ends)): found}).items()
    )
