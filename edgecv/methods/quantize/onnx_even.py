"""Even channels in front of depthwise layers, where one scale would leave most of them no levels.

    y_c = act(x_c)          y'_c = α_c y_c          depthwise: w'_c = w_c / α_c

A depthwise layer reads every channel by itself, so that each may have a scale of its own: α puts
them on the one scale that integers have, and its weights take α back, exactly. Detectors' stems
have channels 4,000 times larger than others: in one scale of 8 bits the small ones are zeros.

    layer, ReLU or none   α goes into the weights and the bias of the layer that makes x
    SiLU and its like     is no line through 0: α is a product behind it, which an engine that
                          computes layer and activation as one (`Facts.fused`) computes with them

A tensor is evened where that pays: the mean over channels of noise / signal, (s_c^2 / 12) / var_c,
s_c = s / α_c, is above POOR and becomes at most BETTER of what it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import layer_inputs
from edgecv.bundling.inference import sample
from edgecv.graphs.onnx.constants import initializers
from edgecv.graphs.onnx.draft import Draft
from edgecv.graphs.onnx.epilogues import epilogues
from edgecv.graphs.onnx.geometry import groups
from edgecv.graphs.onnx.index import Index
from edgecv.methods.quantize.equalization import LEVELS, POOR, scales
from edgecv.samples import CalibrationData

IMAGES = 32
BETTER = 0.25  # of the noise that there was: 6 dB less
NAMED = "/even"  # behind the name of the tensor


@dataclass
class _Seen:
    """What the channels of a tensor held, (C,) each: extremes, and sums for their variance."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    square: np.ndarray
    count: int = 0

    @classmethod
    def nothing(cls, channels: int) -> _Seen:
        far = np.full(channels, np.inf)
        return cls(far, -far, np.zeros(channels), np.zeros(channels))

    def add(self, values: np.ndarray) -> None:
        """values: (C, places)"""
        values = values.astype(np.float64)
        self.low = np.minimum(self.low, values.min(1))
        self.high = np.maximum(self.high, values.max(1))
        self.total += values.sum(1)
        self.square += np.square(values).sum(1)
        self.count += values.shape[1]

    def noise(self, alpha: np.ndarray) -> float:
        """The mean over channels of noise to signal, at most 1 each, on one scale of α y."""
        low, high = min((alpha * self.low).min(), 0.0), max((alpha * self.high).max(), 0.0)
        step = (high - low) / LEVELS / alpha
        variance = self.square / self.count - np.square(self.total / self.count)
        alive = variance > 0
        if not alive.any():
            return 0.0
        return float(np.minimum(np.square(step[alive]) / 12 / variance[alive], 1.0).mean())


@dataclass
class _Place:
    """A tensor that depthwise layers alone read, and who makes it: a layer whose weights can take
    α, or an activation that is followed by a product."""

    tensor: str
    readers: list[Any] = field(default_factory=list)
    maker: Any = None  # None: α is a product behind the tensor


def evened(model: Any, samples: CalibrationData, fused: Collection[str]) -> Any:
    """The model, or a copy with evened channels that computes the same.

    model: onnx.ModelProto with inferred shapes. fused: activations that the engine computes with
    the layer in front of them
    """
    import onnx

    places = {p.tensor: p for p in _places(model, fused)}
    if not places:
        return model
    seen: dict[str, _Seen] = {}
    some: Any = samples  # an array, or feeds: both are images in a row
    for values in layer_inputs(model, list(places), sample(some, IMAGES)):
        for name in places:
            rows = values[name].reshape(values[name].shape[1], -1)
            seen.setdefault(name, _Seen.nothing(len(rows))).add(rows)
    alphas = {}
    for name, held in seen.items():
        alpha = scales([np.maximum(np.abs(held.low), np.abs(held.high))])
        before = held.noise(np.ones_like(alpha))
        if before > POOR and held.noise(alpha) <= BETTER * before:
            alphas[name] = alpha
    if not alphas:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    draft = Draft(made, "quantize")
    again = {p.tensor: p for p in _places(made, fused)}
    for name, alpha in alphas.items():
        _even(draft, again[name], alpha)
    draft.drop_unread()
    return made


def _places(model: Any, fused: Collection[str]) -> Iterator[_Place]:
    index, held = Index(model.graph), initializers(model.graph)
    activations = {e.output for e in epilogues(model) if e.kind in fused} if fused else set()
    for tensor, readers in index.readers.items():
        if tensor in index.ends or not all(_depthwise(r, tensor, held, index) for r in readers):
            continue
        maker = index.makers.get(tensor)
        if tensor in activations:
            yield _Place(tensor, readers)
            continue
        while maker is not None and maker.op_type == "Relu":
            inner = maker.input[0]
            alone = len(index.readers[inner]) == 1 and inner not in index.ends
            maker = index.makers.get(inner) if alone else None
        if maker is not None and maker.op_type == "Conv" and _own(maker, held, index):
            yield _Place(tensor, readers, maker)


def _depthwise(node: Any, tensor: str, held: dict[str, np.ndarray], index: Index) -> bool:
    if node.op_type != "Conv" or node.input[0] != tensor or not _own(node, held, index):
        return False
    weight = held[node.input[1]]
    return groups(node) > 1 and weight.shape[1] == 1


def _own(node: Any, held: dict[str, np.ndarray], index: Index) -> bool:
    """Whether its weights are constant and nobody else's."""
    names = [n for n in node.input[1:] if n]
    return all(n in held and index.uses[n] == 1 for n in names)


def _even(draft: Draft, place: _Place, alpha: np.ndarray) -> None:
    for reader in place.readers:
        weight = draft.constant(reader.input[1])
        assert weight is not None
        each = np.repeat(alpha, len(weight) // len(alpha))
        reader.input[1] = _scaled(draft, reader.input[1], 1 / each)
    if place.maker is not None:
        for i in range(1, len(place.maker.input)):
            place.maker.input[i] = _scaled(draft, place.maker.input[i], alpha)
        return
    name = draft.unique(f"{place.tensor}{NAMED}")
    factor = draft.hold(f"{name}/factor", alpha.astype(np.float32).reshape(1, -1, 1, 1))
    draft.before(place.readers[0], draft.make("Mul", [place.tensor, factor], name))
    for reader in place.readers:
        reader.input[0] = name


def _scaled(draft: Draft, name: str, by: np.ndarray) -> str:
    """A new initializer: each slice along the first axis times its number."""
    values = draft.constant(name)
    assert values is not None
    made = values.astype(np.float64) * by.reshape(-1, *[1] * (values.ndim - 1))
    return draft.hold(name, made.astype(values.dtype))
