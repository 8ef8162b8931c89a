"""What one layer's integers alone do to the answers of a float network.

Both files are taken apart layer by layer; a layer's own answer in integers, on what the float
network holds there, stands in the place of its float self, and the network's answers are judged.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from edgecv.bundling.inference import Answers
from edgecv.diagnosis.parity.isolated_layers import open_apart
from edgecv.diagnosis.parity.layers import Grid, Layer, Sample
from edgecv.diagnosis.parity.matching import Pair, match
from edgecv.diagnosis.parity.replaced import Replaced
from edgecv.fidelity import BEST_DB
from edgecv.graph import Graph
from edgecv.runtime.layers import from_scope

# What repeats numbers in another order: its result is on the grid of what it reads.
MOVES = ("reshape", "transpose", "maxpool", "max_pool_2d", "pad", "slice", "split", "concat",
         "concatenation", "gather", "identity", "relu", "clip", "strided_slice")  # fmt: skip

# (image, float tensors by their names in b, each layer's own answer in integers by the same)
Run = tuple[Sample, dict[str, np.ndarray], Mapping[str, np.ndarray]]
# What a layer's own answers in integers, by their digest, leave of the network's: (digest, dB).
Known = dict[str, tuple[bytes, float]]
Progress = Callable[[int, int], None]


def paired(a: Any, b: Any) -> dict[str, Pair]:
    """The layers of both files that compute something, by the tensor's name in b."""
    return {p.b.tensor: p for p in match(a, b)[0] if p.b.kind != "reshape"}


@contextmanager
def forms(floats: bytes, made: Graph) -> Iterator[tuple[Any, Any]]:
    """Both files, layer by layer."""
    open_form = import_module(f"edgecv.diagnosis.parity.for_{made.format}").FORM
    a, b = (open_form(content, made.path.name) for content in (floats, made.path.read_bytes()))
    try:
        yield a, b
    finally:
        a.close()
        b.close()


def runs(a: Any, b: Any, pairs: Mapping[str, Pair], xs: Sequence[Sample]) -> Iterator[Run]:
    """Every image through the float network, and each layer's integers on what that holds."""
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
class Harm:
    """How good the float network's answers are where something else stands for a layer's self.

    form: float. refs: what it answers by itself, by image of `runs`. judge: how good answers to
    those images are, the more the better; harmless: of a layer that leaves so much on the first
    image the others are not run
    """

    form: Any
    runs: Sequence[Run]
    refs: Sequence[Answers]
    judge: Callable[[Sequence[Answers]], float]
    harmless: float

    def of(
        self, pairs: Mapping[str, Pair], found: Known, progress: Progress = lambda *_: None
    ) -> dict[str, float]:
        """`whole` of each, from `found` where it was measured of the same integers."""
        harm = {}
        for tensor, pair in pairs.items():
            harm[tensor] = self._known(pair, found)
            progress(len(harm), len(pairs))
        return harm

    def _known(self, pair: Pair, found: Known) -> float:
        digest = hashlib.sha256()
        for _, _, own in self.runs:
            digest.update(own[pair.b.tensor].tobytes())
        seen, left = found.get(pair.b.tensor, (b"", 0.0))
        if seen != digest.digest():
            left = self.whole(pair)
            found[pair.b.tensor] = (digest.digest(), left)
        return left

    def whole(self, pair: Pair) -> float:
        """With the layer's own answer in integers."""
        own = [(x, own[pair.b.tensor]) for x, _, own in self.runs]
        with _open(self.form, pair) as net:
            first = [net.answers(own[0][0], {pair.a.tensor: own[0][1]}), *self.refs[1:]]
            found = self.judge(first)
            if len(own) == 1 or found >= self.harmless:
                return found
            rest = [net.answers(x, {pair.a.tensor: v}) for x, v in own[1:]]
        return self.judge([first[0], *rest])

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
        return self.judge(outs)


@contextmanager
def _open(form: Any, pair: Pair) -> Iterator[Replaced]:
    net = Replaced(form, [pair.a.tensor])
    try:
        yield net
    finally:
        net.close()


def _on(values: np.ndarray, grid: Grid) -> np.ndarray:
    q = np.clip(np.rint(values / grid.scale) + grid.zero_point, grid.low, grid.high)
    return np.asarray((q - grid.zero_point) * grid.scale, np.float32)


def blamed_names(pair: Pair, coarse: bool, layers: Sequence[Layer]) -> tuple[str, tuple[str, ...]]:
    """(the layer's name, the names that stay float with it). layers: of the float file"""
    scopes = Counter(from_scope(layer.name) for layer in layers)
    named = {x.name: s if (s := from_scope(x.name)) and scopes[s] == 1 else x.name for x in layers}
    a, b = pair.a, pair.b
    layer = b.name if b.name in named else a.name  # of a fused activation: what it is fused with
    keep = {layer, a.name} | _readers(a.tensor, layers) if coarse else {layer}
    return named[layer], tuple(sorted(named[n] for n in keep))


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
