"""Even channels in front of the depthwise layers of a float .tflite (`onnx_even.py` says why).

    ReLU, none   y'_c = α_c y_c, by the weights and the bias of the layer that makes y
    SiLU         x'_c = α_c x_c, likewise;  y'_c = x'_c sigmoid(x'_c / α_c) = α_c y_c

LiteRT computes SiLU in two operators with x in 8 bits between them: α behind it would come too
late. So both x' and y' are evened, and a product by 1/α makes what LOGISTIC reads: one operator
more. Of x what lies below -REACH is not looked at, silu(x) is nothing there.

    α_c = min(1 / max y_c, A / -min x_c, C / -min y_c)

is the most that fits into x' in [-A, 1] and y' in [-C, 1]; A and C are those with the least noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index
from edgecv.graphs.tflite.layers import as_in_file, operand, own, weights
from edgecv.stages.quantize._tflite_gates import gate_of, told_apart
from edgecv.stages.quantize.equalization import MOST
from edgecv.stages.quantize.onnx_even import LEVELS, POOR
from edgecv.stages.quantize.ranges import Range

BETTER = 0.5  # of the noise that there was: 3 dB less
REACH = 6.0
SPANS = np.geomspace(0.02, 50, 40)  # of A and C
_MAKERS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass
class _Place:
    """y, which depthwise layers alone read, at once or behind a PAD.

    maker: the layer that can take α. gate: the LOGISTIC of a SiLU; None of ReLU or nothing
    """

    y: int
    readers: list[Any]
    maker: Any
    gate: Any

    @property
    def x(self) -> int:
        return int(self.maker.outputs[0])


@dataclass
class _Seen:
    """What the channels of x and y held.

    sums: (3, C) of y, its square, the square of dy/dx. ends: (3, C) of each image's least and
    largest x and its least y, added up; least, most: over all images
    """

    gated: bool
    sums: np.ndarray = field(default_factory=lambda: np.zeros(()))
    ends: np.ndarray = field(default_factory=lambda: np.zeros(()))
    least: np.ndarray = field(default_factory=lambda: np.full((), np.inf))
    most: np.ndarray = field(default_factory=lambda: np.full((), -np.inf))
    count: int = 0
    images: int = 0

    def add(self, x: np.ndarray) -> None:
        """x: (places, C) of one image, behind a fused ReLU where there is one"""
        x = x.astype(np.float64)
        y, slope = x, np.ones_like(x)
        if self.gated:
            x = np.maximum(x, -REACH)
            open_ = 1 / (1 + np.exp(-x))
            y, slope = x * open_, open_ * (1 + x * (1 - open_))
        self.sums = self.sums + np.stack([y.sum(0), np.square(y).sum(0), np.square(slope).sum(0)])
        ends = np.stack([x.min(0), x.max(0), y.min(0)])
        self.ends = self.ends + ends
        self.least = np.minimum(self.least, ends)
        self.most = np.maximum(self.most, ends)
        self.count += len(x)
        self.images += 1

    @property
    def as_it_is(self) -> np.ndarray:
        """α of 1."""
        return np.ones(self.sums.shape[1])

    def spans(self, alpha: np.ndarray, whole: bool) -> tuple[Range, Range]:
        """Of x' and of y', which hold 0. whole: of all images, else of a typical one"""
        low, high, under = self.ends / self.images
        if whole:
            low, high, under = self.least[0], self.most[1], self.least[2]
        top = max(0.0, float((alpha * high).max()))
        return (
            (min(0.0, float((alpha * low).min())), top),
            (min(0.0, float((alpha * under).min())), top),
        )

    def noise(self, alpha: np.ndarray) -> float:
        """The mean over channels of noise to signal in y, at most 1 each."""
        x, y = (np.square((high - low) / LEVELS) / 12 for low, high in self.spans(alpha, False))
        total, square, slope = self.sums / self.count
        variance = square - np.square(total)
        alive = variance > 0
        if not alive.any():
            return 0.0
        each = (y + (x * slope if self.gated else 0.0)) / np.square(alpha)
        return float(np.minimum(each[alive] / variance[alive], 1.0).mean())

    def best(self) -> np.ndarray:
        """α with the least noise."""
        low, high, under = np.abs(self.ends / self.images)
        found = self.as_it_is
        least = self.noise(found)
        with np.errstate(divide="ignore"):
            for a in SPANS if self.gated else SPANS[-1:]:
                for c in SPANS:
                    alpha = np.minimum(1 / high, np.minimum(a / low, c / under))
                    alive = np.isfinite(alpha)
                    if not alive.any():
                        return found
                    alpha = np.where(alive, alpha, 1.0)
                    alpha /= np.exp(np.log(alpha[alive]).mean())
                    alpha = np.clip(np.where(alive, alpha, 1.0), 1 / MOST, MOST)
                    noise = self.noise(alpha)
                    if noise < least:
                        found, least = alpha, noise
        return found


Value = Callable[[int], np.ndarray]
# By the name of a tensor: its range over a typical image and over all of them.
Evened = dict[str, tuple[Range, Range]]


def even(
    model: Any, runs: Callable[[], Iterable[Callable[[int], np.ndarray]]]
) -> tuple[int, Evened]:
    """Edit a float model in place so that it computes the same with evener channels where that
    pays; how many tensors were evened, and the ranges of what lies in a SiLU that was.

    runs: for each of some samples a function from a tensor's index to its value (1, H, W, C)
    """
    places = list(_places(model))
    if not places:
        return 0, {}
    seen = [_Seen(place.gate is not None) for place in places]
    for value_of in runs():
        for place, held in zip(places, seen, strict=True):
            x = value_of(place.x)
            held.add(x.reshape(-1, x.shape[-1]))
    tensors, found, count = flatbuffer.graph_of(model).tensors, Evened(), 0
    for place, held in zip(places, seen, strict=True):
        before = held.noise(held.as_it_is)
        if before <= POOR:
            continue
        alpha = held.best()
        if held.noise(alpha) > BETTER * before:
            continue
        count += 1
        _even(model, place, alpha)
        if place.gate is not None:
            ranges = _ranges(held, alpha)
            lying = (place.x, place.y, int(place.gate.inputs[0]))
            for index, spans in zip(lying, ranges, strict=True):
                found[tensors[index].name.decode()] = spans
    return count, found


def _ranges(held: _Seen, alpha: np.ndarray) -> Iterator[tuple[Range, Range]]:
    """Of x', of y' and of the x that LOGISTIC reads."""
    yield from zip(held.spans(alpha, False), held.spans(alpha, True), strict=True)
    as_it_was = (held.spans(held.as_it_is, whole)[0] for whole in (False, True))
    typical, whole = (told_apart(span) for span in as_it_was)
    yield typical, whole


def _places(model: Any) -> Iterator[_Place]:
    index = Index(flatbuffer.graph_of(model))
    for y, maker in list(index.makers.items()):
        readers = _depthwise(model, index, y)
        if not readers:
            continue
        gate, allowed = None, {"NONE", "RELU"}
        if flatbuffer.op_name(model, maker) == "MUL":
            gate, allowed = gate_of(model, index, maker), {"NONE"}
            maker = index.makers.get(int(gate.inputs[0])) if gate else None
        if maker is None or (kind := flatbuffer.op_name(model, maker)) not in _MAKERS:
            continue
        fused = maker.builtinOptions.fusedActivationFunction
        if fused not in [flatbuffer.enum("ActivationFunctionType", name) for name in allowed]:
            continue
        if weights(model, kind, maker) is not None:
            yield _Place(y, readers, maker, gate)


def _depthwise(model: Any, index: Index, tensor: int) -> list[Any]:
    """The depthwise layers that read a tensor; none where anything else does."""
    found: list[Any] = []
    if tensor in map(int, index.graph.outputs):
        return []
    for op in index.readers.get(tensor, []):
        kind, inner = flatbuffer.op_name(model, op), [op]
        if kind == "PAD":
            inner = _depthwise(model, index, int(op.outputs[0]))
        elif kind != "DEPTHWISE_CONV_2D" or weights(model, kind, op) is None:
            return []
        if not inner:
            return []
        found += inner
    return found


def _even(model: Any, place: _Place, alpha: np.ndarray) -> None:
    for reader in place.readers:
        real = weights(model, "DEPTHWISE_CONV_2D", reader)
        assert real is not None
        _scaled(model, reader, 1 / np.repeat(alpha, len(real) // len(alpha)), False)
    _scaled(model, place.maker, alpha, True)
    if place.gate is None:
        return
    graph = flatbuffer.graph_of(model)
    name, shape = graph.tensors[place.x].name.decode() + ".even", graph.tensors[place.x].shape
    factor = flatbuffer.add_tensor(model, f"{name}.factor", [1, 1, 1, len(alpha)])
    inner = flatbuffer.add_tensor(model, name, list(shape))
    values = (1 / alpha).astype(np.float32).reshape(1, 1, 1, -1)
    flatbuffer.set_constant(model, graph.tensors[factor], values)
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, "MUL")
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "MulOptions")
    op.builtinOptions = flatbuffer.new("MulOptionsT")
    op.inputs, op.outputs = [place.x, factor], [inner]
    graph.operators.insert(graph.operators.index(place.gate), op)
    place.gate.inputs = [inner]


def _scaled(model: Any, op: Any, by: np.ndarray, bias: bool) -> None:
    """Each output channel of a layer's weights times its number, and of its bias if so asked."""
    kind = flatbuffer.op_name(model, op)
    real, offset = weights(model, kind, op), operand(model, kind, op, 2)
    assert real is not None
    made = real.astype(np.float64) * by.reshape(-1, *[1] * (real.ndim - 1))
    flatbuffer.set_constant(model, own(model, op, 1), as_in_file(kind, made.astype(real.dtype)))
    if bias and offset is not None:
        held = flatbuffer.constant(model, offset)
        assert held is not None
        flatbuffer.set_constant(model, own(model, op, 2), (held * by).astype(held.dtype))
