"""Even channels in front of the convolutions of a float .tflite (`onnx_even.py` says why).

    ReLU, none   y'_c = α_c y_c, by the weights and the bias of the layer that makes y
    SiLU         x'_c = α_c x_c, likewise;  y'_c = x'_c sigmoid(x'_c / α_c) = α_c y_c

LiteRT computes SiLU in two operators with x in 8 bits between them: α behind it would come too
late. So both x' and y' are evened, and a product by 1/α makes what LOGISTIC reads: one operator
more. Of x what lies below -REACH is not looked at, silu(x) is nothing there.

    α_c = min(1 / max y_c, A / -min x_c, C / -min y_c)

is the most that fits into x' in [-A, 1] and y' in [-C, 1]; A and C are those with the least noise.

Behind a SiLU, whose x and y are rounded both, a dense convolution takes 1 / α into the columns of
its weights. Those share a scale for each output o, which α spreads: its noise counts too, and the
root of α is tried (as in Xiao et al., "SmoothQuant", ICML 2023):

    noise_o = Σ_c w_oc² n_c / α_c² + s_o² / 12 Σ_c α_c² E[y_c²],  s_o = max_c |w_oc / α_c| / 127
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index
from edgecv.graphs.tflite.layers import as_in_file, operand, own, weights
from edgecv.methods.quantize._tflite_gates import gate_of, told_apart
from edgecv.methods.quantize.equalization import LEVELS, MOST, POOR
from edgecv.methods.quantize.ranges import Range

OF_SILU = 0.15  # of POOR: what matters behind a SiLU, for there are many in a row
WEIGHT_LEVELS = 127
ROOM = 1.25  # of a typical image's range: cut off at it, what is found is less sure
POWERS = (1.0, 0.5)  # of α in front of dense layers
BETTER = 0.5  # of the noise that there was: 3 dB less
REACH = 6.0
SPANS = np.geomspace(0.02, 50, 40)  # of A and C
_MAKERS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass
class _Dense:
    """Weights of a dense reader by output and input channel, (O, C): the largest, the sum of
    squares. taps: values of a channel that an output sums"""

    large: np.ndarray
    power: np.ndarray
    taps: int

    @classmethod
    def of(cls, model: Any, op: Any) -> _Dense | None:
        """None of a depthwise layer."""
        kind = flatbuffer.op_name(model, op)
        if kind != "CONV_2D":
            return None
        real = weights(model, kind, op)
        assert real is not None
        each = real.reshape(*real.shape[:2], -1).astype(np.float64)
        return cls(np.abs(each).max(2), np.square(each).sum(2), each.shape[2])

    def noise(
        self, alpha: np.ndarray, each: np.ndarray, square: np.ndarray, variance: np.ndarray
    ) -> float:
        """The mean over outputs of noise to signal, at most 1 each. (C,) of the channels: their
        noise, mean square and variance"""
        step = (self.large / alpha).max(1) / WEIGHT_LEVELS
        own_ = np.square(step) / 12 * self.taps * (np.square(alpha) @ square)
        signal = self.power @ variance
        alive = signal > 0
        share = (self.power @ each + own_)[alive] / signal[alive]
        return float(np.minimum(share, 1.0).mean()) if alive.any() else 0.0


@dataclass
class _Place:
    """y, which convolutions alone read, at once or behind a PAD.

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
    """What the channels of x and y held, and what reads them.

    sums: (3, C) of y, its square, the square of dy/dx. ends: (3, C) of each image's least and
    largest x and its least y, added up; least, most: over all images
    """

    gated: bool
    readers: list[_Dense | None]
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
        """The mean over channels of noise to signal in y, over outputs of what dense layers make
        of it, at most 1 each: that of the reader with the most."""
        x, y = (np.square((high - low) / LEVELS) / 12 for low, high in self.spans(alpha, False))
        total, square, slope = self.sums / self.count
        variance = square - np.square(total)
        alive = variance > 0
        if not alive.any():
            return 0.0
        each = (y + (x * slope if self.gated else 0.0)) / np.square(alpha)
        alone = float(np.minimum(each[alive] / variance[alive], 1.0).mean())
        return max(
            alone if reader is None else reader.noise(alpha, each, square, variance)
            for reader in self.readers
        )

    def best(self) -> np.ndarray:
        """α with the least noise."""
        low, high, under = np.abs(self.ends / self.images)
        found = self.as_it_is
        least = self.noise(found)
        powers = POWERS if any(self.readers) else POWERS[:1]
        with np.errstate(divide="ignore"):
            for a in SPANS if self.gated else SPANS[-1:]:
                for c in SPANS:
                    alpha = np.minimum(1 / high, np.minimum(a / low, c / under))
                    alive = np.isfinite(alpha)
                    if not alive.any():
                        return found
                    alpha = np.where(alive, alpha, 1.0)
                    alpha /= np.exp(np.log(alpha[alive]).mean())
                    for power in powers:
                        some = np.clip(np.where(alive, alpha, 1.0) ** power, 1 / MOST, MOST)
                        noise = self.noise(some)
                        if noise < least:
                            found, least = some, noise
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
    seen = [_Seen(p.gate is not None, [_Dense.of(model, r) for r in p.readers]) for p in places]
    for value_of in runs():
        for place, held in zip(places, seen, strict=True):
            x = value_of(place.x)
            held.add(x.reshape(-1, x.shape[-1]))
    tensors, found, count = flatbuffer.graph_of(model).tensors, Evened(), 0
    for place, held in zip(places, seen, strict=True):
        before = held.noise(held.as_it_is)
        if before <= POOR * (1.0 if place.gate is None else OF_SILU):
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
    for typical, whole in zip(held.spans(alpha, False), held.spans(alpha, True), strict=True):
        low, high = (ROOM * end for end in typical)
        yield (max(low, whole[0]), min(high, whole[1])), whole
    as_it_was = (held.spans(held.as_it_is, whole)[0] for whole in (False, True))
    typical, whole = (told_apart(span) for span in as_it_was)
    yield typical, whole


def _places(model: Any) -> Iterator[_Place]:
    index = Index(flatbuffer.graph_of(model))
    for y, maker in list(index.makers.items()):
        readers = _convolutions(model, index, y)
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
        dense = any(flatbuffer.op_name(model, r) == "CONV_2D" for r in readers)
        if weights(model, kind, maker) is not None and (gate is not None or not dense):
            yield _Place(y, readers, maker, gate)


def _convolutions(model: Any, index: Index, tensor: int) -> list[Any]:
    """The convolutions that read a tensor; none where anything else does, or one in groups."""
    found: list[Any] = []
    if tensor in map(int, index.graph.outputs):
        return []
    for op in index.readers.get(tensor, []):
        kind, inner = flatbuffer.op_name(model, op), [op]
        if kind == "PAD":
            inner = _convolutions(model, index, int(op.outputs[0]))
        elif not _reads(model, index, op, tensor):
            return []
        if not inner:
            return []
        found += inner
    return found


def _reads(model: Any, index: Index, op: Any, tensor: int) -> bool:
    """Whether a convolution with constant weights, dense or depthwise, reads a tensor."""
    kind = flatbuffer.op_name(model, op)
    if kind not in _MAKERS or int(op.inputs[0]) != tensor:
        return False
    real = weights(model, kind, op)
    channels = index.graph.tensors[tensor].shape[-1]
    return real is not None and (kind != "CONV_2D" or real.shape[1] == channels)


def _even(model: Any, place: _Place, alpha: np.ndarray) -> None:
    for reader in place.readers:
        kind = flatbuffer.op_name(model, reader)
        real = weights(model, kind, reader)
        assert real is not None
        if kind == "CONV_2D":
            made = (real / alpha.reshape(1, -1, 1, 1)).astype(real.dtype)
            flatbuffer.set_constant(model, own(model, reader, 1), as_in_file(kind, made))
        else:
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
