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

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from edgecv.graph import Graph
from edgecv.ladder.apart import open_apart
from edgecv.ladder.layers import Grid, Layer, Sample
from edgecv.ladder.matching import Pair, match
from edgecv.ladder.replaced import Replaced
from edgecv.parity import BEST_DB, INT8_ROUNDING
from edgecv.replay import Answers
from edgecv.runtime.fidelity import Energy, compare_all, kinds
from edgecv.runtime.layers import from_scope
from edgecv.runtime.spec import joined

IMAGES, FEW = 8, 4  # FEW: of those, where every layer's harm is measured by itself
OWN_DB, ANSWERS_DB = 10.0, 20.0
HARMLESS_DB = 20.0  # more than ANSWERS_DB: 6 for images that are not run, the rest to be sure
TOLD = 3  # layers of which all is said
DOMINANT_DB = 6.0  # of a network that is too far off, layers this near to the worst go first
# What repeats numbers in another order: its result is on the grid of what it reads.
MOVES = ("reshape", "transpose", "maxpool", "max_pool_2d", "pad", "slice", "split", "concat",
         "concatenation", "gather", "identity", "relu", "clip", "strided_slice")  # fmt: skip


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


# (image, float tensors by their names in b, each layer's own answer in integers by the same)
Run = tuple[Sample, dict[str, np.ndarray], Mapping[str, np.ndarray]]


# What a layer's own answers in integers, by their digest, do to the network's: (digest, dB).
Known = dict[str, tuple[bytes, float]]


def far_off(
    floats: bytes,
    made: Graph,
    xs: Sequence[Sample],
    least_db: float,
    last: bool = False,
    known: Known | None = None,
) -> list[FarOff]:
    """The layers of `made` that are far off, in order.

    floats: the float file that was quantized, its channels evened out where `made`'s are.
    xs: float32 (1, C, H, W), normalised; the first few are used.
    least_db: what the whole of `made` is to answer; below it every layer is suspected
    last: nobody asks again: where the whole is too far off, all that must be float for least_db
    known: what was found before of the same floats and images, filled here: a layer whose integers
        are what they were is not measured again
    """
    ends, bounds = kinds(made.outputs), made.bounds
    with _forms(floats, made) as (a, b):
        pairs = {p.b.tensor: p for p in match(a, b)[0] if p.b.kind != "reshape"}
        own = _own_db(a, b, pairs, xs[:IMAGES])
        refs = [a.answers(x) for x in xs[:IMAGES]]
        outs = [b.answers(x) for x in xs[:IMAGES]]
        near = _compared(list(zip(refs, outs, strict=True)), ends, bounds) >= least_db
        suspects = {t: pairs[t] for t, db in own.items() if db < OWN_DB or not near}
        if not suspects:
            return []
        runs = list(_runs(a, b, suspects, xs[:FEW]))
        harmed = _Harm(a, runs, refs[:FEW], ends, bounds)
        seen: Known = {} if known is None else known
        harm = {t: harmed.known(p, seen) for t, p in suspects.items()}
        most = min(harm.values()) + DOMINANT_DB
        wrong = [t for t in suspects if harm[t] < ANSWERS_DB and (harm[t] < most or near)]
        if last and not near:
            wrong = [t for t in suspects if t in {*wrong, *_dearest(harm, least_db)}]
        coarse = {t for t in wrong if harmed.rounding(pairs[t]) < ANSWERS_DB}
    blamed = [t for t in wrong if t in coarse or not coarse.intersection(pairs[t].b.inputs)]
    return [_blamed(pairs[t], own[t], harm[t], t in coarse, a.layers) for t in blamed]


def whole_db(floats: bytes, made: Graph, xs: Sequence[Sample]) -> float:
    """dB of `made`'s worst output on those images that `far_off` judges it by."""
    with _forms(floats, made) as (a, b):
        pairs = [(a.answers(x), b.answers(x)) for x in xs[:IMAGES]]
    return _compared(pairs, kinds(made.outputs), made.bounds)


@contextmanager
def _forms(floats: bytes, made: Graph) -> Iterator[tuple[Any, Any]]:
    """Both files, layer by layer."""
    open_form = import_module(f"edgecv.ladder.for_{made.format}").FORM
    a, b = (open_form(content, made.path.name) for content in (floats, made.path.read_bytes()))
    try:
        yield a, b
    finally:
        a.close()
        b.close()


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
    for _, given, own in _runs(a, b, pairs, xs):
        for tensor, values in own.items():
            ref = given[tensor]
            sums.setdefault(tensor, Energy()).add(ref, values.reshape(ref.shape))
    return {t: sums[t].sqnr_db for t in pairs if t in sums}


def _runs(a: Any, b: Any, pairs: Mapping[str, Pair], xs: Sequence[Sample]) -> Iterator[Run]:
    apart = open_apart(b, pairs)
    if apart is None:
        return
    try:
        for x in xs:
            values = a.values(x, [p.a.tensor for p in pairs.values()])
            given = {t: _as_read(p, values[p.a.tensor]) for t, p in pairs.items()}
            yield x, given, apart.values(x, given)
    finally:
        apart.close()


def _as_read(pair: Pair, values: np.ndarray) -> np.ndarray:
    """The float tensor that stands for the quantized one: behind an activation that was fused."""
    if pair.a.tensor == pair.b.tensor:
        return values
    return pair.values(values, values)[0]


@dataclass(frozen=True)
class _Harm:
    """dB of the float network's answers where something else stands for a layer's float self.

    form: float. refs: what it answers by itself, by image of `runs`. bounds: `Graph.bounds`
    """

    form: Any
    runs: Sequence[Run]
    refs: Sequence[Answers]
    ends: Mapping[str, str]
    bounds: Mapping[str, float]

    def known(self, pair: Pair, found: Known) -> float:
        """`whole`, from `found` where it was measured of the same integers."""
        digest = hashlib.sha256()
        for _, _, own in self.runs:
            digest.update(own[pair.b.tensor].tobytes())
        seen, db = found.get(pair.b.tensor, (b"", 0.0))
        if seen != digest.digest():
            db = self.whole(pair)
            found[pair.b.tensor] = (digest.digest(), db)
        return db

    def whole(self, pair: Pair) -> float:
        """With the layer's own answer in integers. Of a layer that does no harm at all on the
        first image the others are not run."""
        own = [(x, own[pair.b.tensor]) for x, _, own in self.runs]
        with _open(self.form, pair) as net:
            first = [net.answers(own[0][0], {pair.a.tensor: own[0][1]}), *self.refs[1:]]
            found = self._db(first)
            if len(own) == 1 or found >= ANSWERS_DB + HARMLESS_DB:
                return found
            rest = [net.answers(x, {pair.a.tensor: v}) for x, v in own[1:]]
        return self._db([first[0], *rest])

    def rounding(self, pair: Pair) -> float:
        """With the float answer, put on the grid of its result."""
        grid, tensor = pair.b.grid, pair.b.tensor
        if grid is None:
            return BEST_DB
        with _open(self.form, pair) as net:
            outs = [
                net.answers(x, {pair.a.tensor: _on(given[tensor], grid)})
                for x, given, _ in self.runs
            ]
        return self._db(outs)

    def _db(self, outs: Sequence[Answers]) -> float:
        return _compared(list(zip(self.refs, outs, strict=True)), self.ends, self.bounds)


@contextmanager
def _open(form: Any, pair: Pair) -> Iterator[Replaced]:
    net = Replaced(form, [pair.a.tensor])
    try:
        yield net
    finally:
        net.close()


def _compared(
    pairs: Sequence[tuple[Answers, Answers]], ends: Mapping[str, str], bounds: Mapping[str, float]
) -> float:
    """dB of the worst output that is off by more than rounding of the range it has (`bounds`).

    pairs: (float answers, others) by image
    """
    before, after = (
        [joined(column) for column in zip(*rows, strict=True)] for rows in zip(*pairs, strict=True)
    )
    found = compare_all(before, after, ends)
    return min(
        BEST_DB if one.max_abs_error <= INT8_ROUNDING * bounds.get(name, 0.0) else one.sqnr_db
        for name, one in (found.outputs or {next(iter(ends)): found}).items()
    )


def _on(values: np.ndarray, grid: Grid) -> np.ndarray:
    q = np.clip(np.rint(values / grid.scale) + grid.zero_point, grid.low, grid.high)
    return np.asarray((q - grid.zero_point) * grid.scale, np.float32)


def _blamed(
    pair: Pair, own_db: float, answers_db: float, coarse: bool, layers: Sequence[Layer]
) -> FarOff:
    scopes = Counter(from_scope(layer.name) for layer in layers)
    named = {x.name: s if (s := from_scope(x.name)) and scopes[s] == 1 else x.name for x in layers}
    a, b = pair.a, pair.b
    layer = b.name if b.name in named else a.name  # of a fused activation: what it is fused with
    keep = {layer, a.name} | _readers(a.tensor, layers) if coarse else {layer}
    return FarOff(named[layer], own_db, answers_db, tuple(sorted(named[n] for n in keep)))


def _readers(tensor: str, layers: Sequence[Layer]) -> set[str]:
    """Names of the layers that read the tensor, through those that only move its numbers."""
    found, todo = set(), [tensor]
    while todo:
        name = todo.pop()
        for layer in layers:
            if name in layer.inputs and layer.name not in found:
                found.add(layer.name)
                todo += [layer.tensor] if layer.kind in MOVES else []
    return found
