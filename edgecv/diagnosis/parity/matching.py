"""Which layer of one form is which of another.

By the tensor's name where both files keep it (ONNX, its quantized twin, OpenVINO; TFLite and its
quantized twin); by the module that it comes from ("stage1.0.conv1": PyTorch, ONNX, TFLite); by
order and shape else: the longest common run of (kind, shape) over convolutions and dense layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from edgecv.diagnosis.parity.layers import COMPUTE, INPUT, Form, Layer, sources
from edgecv.errors import ModelError

ENOUGH = 0.5  # of the convolutions and dense layers, to trust a way of matching


@dataclass(frozen=True)
class Pair:
    """The same layer in two forms."""

    a: Layer
    b: Layer

    def values(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both results made comparable: a fused activation is done to the one without it, and
        what holds as many numbers in another shape is flattened. Raises ModelError."""
        if self.b.clip and not self.a.clip:
            a = np.clip(a, *self.b.clip)
        elif self.a.clip and not self.b.clip:
            b = np.clip(b, *self.a.clip)
        if a.shape != b.shape:
            if a.size != b.size:
                what = f"is {b.shape} where the other form has {a.shape}"
                raise ModelError(f"layer {self.b.name!r}", what, "these are different networks")
            a, b = a.reshape(-1), b.reshape(-1)
        return a, b


def unfused(a: Form, b: Form, pair: Pair) -> Pair:
    """The convolutions or dense layers behind a pair, where one side has its activation fused and
    the other a layer of its own for it; else the pair itself."""
    if (pair.a.kind in COMPUTE) == (pair.b.kind in COMPUTE):
        return pair
    one, two = _behind(a, pair.a), _behind(b, pair.b)
    return Pair(one, two) if one and two and one.kind == two.kind else pair


def _behind(form: Form, layer: Layer) -> Layer | None:
    """The layer itself, or the one that it alone reads, down to one that multiplies."""
    made = {x.tensor: x for x in form.layers}
    found: Layer | None = layer
    while found and found.kind not in COMPUTE:
        found = made.get(found.inputs[0]) if len(found.inputs) == 1 else None
    return found


def match(a: Form, b: Form) -> tuple[list[Pair], str]:
    """Pairs in b's order, and how they were found ("name", "module" or "order").

    What is neither convolution nor dense is matched by what it reads.
    """
    count = max(1, min(_compute(a.layers), _compute(b.layers)))
    for way, key in (("name", _tensor), ("module", _module)):
        pairs = _by(a.layers, b.layers, key)
        good = sum(p.b.kind in COMPUTE for p in pairs) >= ENOUGH * count
        if good and not any(_strangers(p) for p in pairs):
            return _fitting(_filled(a, b, pairs)), way
    return _fitting(_filled(a, b, _by_order(a.layers, b.layers))), "order"


def _strangers(pair: Pair) -> bool:
    """Whether two layers of one name come from different modules: names were counted anew."""
    a, b = pair.a, pair.b
    return bool(a.path and b.path and a.path != b.path and a.kind == b.kind)


def _filled(a: Form, b: Form, pairs: list[Pair]) -> list[Pair]:
    """The pairs, and those of one kind and size that read the same matched layers, alone in it."""
    ours, theirs = ({x.tensor: x.inputs for x in form.layers} for form in (a, b))
    twin = {INPUT: INPUT} | {p.b.tensor: p.a.tensor for p in pairs}
    taken = set(twin.values())
    every = {p.b.tensor: p for p in pairs}
    for layer in b.layers:
        if layer.tensor in twin or layer.kind in COMPUTE:
            continue
        reads = {twin[t] for t in sources(layer.tensor, twin, theirs)}
        same = [
            x
            for x in a.layers
            if x.kind == layer.kind
            and x.tensor not in taken
            and np.prod(x.shape) == np.prod(layer.shape)
            and set(sources(x.tensor, taken, ours)) == reads
        ]
        if len(same) == 1:
            twin[layer.tensor] = same[0].tensor
            taken.add(same[0].tensor)
            every[layer.tensor] = Pair(same[0], layer)
    return [every[x.tensor] for x in b.layers if x.tensor in every]


def _tensor(layer: Layer) -> Hashable:
    return layer.tensor


def _module(layer: Layer) -> Hashable:
    return layer.path if layer.kind in COMPUTE and layer.path else None


def _by(a: Sequence[Layer], b: Sequence[Layer], key: Callable[[Layer], Hashable]) -> list[Pair]:
    counts = Counter(key(layer) for layer in a)
    known = {key(layer): layer for layer in a}
    return [
        Pair(known[k], layer) for layer in b if (k := key(layer)) is not None and counts.get(k) == 1
    ]


def _by_order(a: Sequence[Layer], b: Sequence[Layer]) -> list[Pair]:
    ours, theirs = ([x for x in side if x.kind in COMPUTE] for side in (a, b))
    keys = [[(x.kind, _plain(x.shape)) for x in side] for side in (ours, theirs)]
    blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    return [Pair(ours[m.a + i], theirs[m.b + i]) for m in blocks for i in range(m.size)]


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of one pixel: a dense layer may be a 1x1 convolution elsewhere."""
    return tuple(n for n in shape if n != 1)


def _fitting(pairs: list[Pair]) -> list[Pair]:
    """Those whose results hold as many numbers, where both say how many."""
    return [
        p
        for p in pairs
        if not p.a.shape or not p.b.shape or np.prod(p.a.shape) == np.prod(p.b.shape)
    ]


def _compute(layers: Sequence[Layer]) -> int:
    return sum(layer.kind in COMPUTE for layer in layers)
