"""How a quantized .tflite ends: y = s_w (W_q x) + b in real numbers, and what stands behind it.

An integer output has 256 levels over everything it ever held: two classes become one value, and
what an image brings beyond the samples is cut off. So the last product, where it has one row, and
all that stands behind the last product are computed in float32; the weights stay int8 in the file
(DEQUANTIZE of a constant, which interpreters do once). ONNX Runtime and OpenVINO do the same.

A map of classes keeps its 8 bits: its pixels are many. The Edge TPU computes in integers only; its
outputs get a wider range instead.

What joins several quantities, boxes beside probabilities, would have one scale for all: what stands
behind the last products of such an output is in float for the Edge TPU too. Its compiler maps what
comes before, and the CPU beside it computes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index
from edgecv.graphs.tflite.layers import (
    OPERANDS,
    as_in_file,
    is_float,
    layers,
    operand,
    own,
    weights,
)
from edgecv.methods.quantize.layer_rounding import settle_layer
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.ranges import Range
from edgecv.methods.quantize.rounding import Moments
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.layers import layer_of
from edgecv.runtime.spec import TensorSpec

LIMIT = 127
ROOM = 1 / 8  # of an integer output's width, on either side, for what the samples do not show
SURE = 9.0  # beyond it a sigmoid is within 1e-4 of its end
_PRODUCTS = frozenset((*OPERANDS, "BATCH_MATMUL"))
_DENSE = ("FULLY_CONNECTED", "CONV_2D")
_MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
_PER_CHANNEL = 5  # the version of DEQUANTIZE that takes a scale for each channel


@dataclass(frozen=True)
class Ends:
    """What computes in float.

    names: of the operators, by their first output tensor. products: those that have weights
    """

    names: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()


def ends_of(
    model: Any, outputs: Sequence[TensorSpec], kept: set[str], integer: bool = False
) -> Ends:
    """The last product of one row, and what stands behind the last product.

    model: the float one. kept: operators that stay float anyway. integer: an engine whose products
    take no floats: what stands behind them, of outputs that join several quantities
    """
    graph = flatbuffer.graph_of(model)
    free = {
        int(t): bool(s.groups) or (not integer and _is_row(s))
        for t, s in zip(graph.outputs, outputs, strict=True)
    }
    open_ = {int(t): free.get(int(t), True) for op in graph.operators for t in op.outputs}
    names, products = set(), set()
    for op in reversed(graph.operators):
        kind, name = flatbuffer.op_name(model, op), _name(graph, op)
        behind = all(open_[int(t)] for t in op.outputs)
        last = not integer and behind and kind in _DENSE and _one_row(model, kind, op)
        if last and name not in kept:
            products.add(name)
        if last or (behind and kind not in _PRODUCTS):
            names.add(name)
        if not behind or kind in _PRODUCTS:
            open_ |= {int(t): False for t in op.inputs if int(t) in open_}
    return Ends(frozenset(names - kept), frozenset(products))


def seams(model: Any, outputs: Sequence[TensorSpec], ends: Ends) -> dict[str, tuple[float, float]]:
    """Products of the float model that float operators alone read, where an output joins several
    quantities, each with as much of its range as they tell apart: they are answers, and keep what
    they held on any image."""
    if not any(spec.groups for spec in outputs):
        return {}
    graph = flatbuffer.graph_of(model)
    found, index = {}, Index(graph)
    for op in graph.operators:
        readers = index.readers.get(int(op.outputs[0]), [])
        behind = bool(readers) and all(_name(graph, r) in ends.names for r in readers)
        if flatbuffer.op_name(model, op) in _PRODUCTS and behind:
            sigmoids = all(flatbuffer.op_name(model, r) == "LOGISTIC" for r in readers)
            found[_name(graph, op)] = (-SURE, SURE) if sigmoids else (-np.inf, np.inf)
    return found


def in_float(model: Any, ends: Ends) -> None:
    """Edit a quantized model in place so that its free outputs are not quantized at the last."""
    graph = flatbuffer.graph_of(model)
    real = flatbuffer.enum("TensorType", "FLOAT32")
    for op in list(graph.operators):
        source, result = int(op.inputs[0]), int(op.outputs[0])
        given = result in [int(t) for t in graph.outputs]
        if not given or flatbuffer.op_name(model, op) != "QUANTIZE":
            continue
        maker = next((o for o in graph.operators if source in [int(t) for t in o.outputs]), None)
        if graph.tensors[source].type == real and maker and _name(graph, maker) in ends.names:
            graph.outputs = [source if int(t) == result else int(t) for t in graph.outputs]
            graph.operators.remove(op)


def hold_weights(
    model: Any,
    float_model: Any,
    ends: Ends,
    moments: Mapping[int, Moments],
    scales: Mapping[str, Sequence[float]],
    options: Options,
    per_channel: bool,
) -> list[str]:
    """Give the float products of a quantized model, in place, weights of int8 in the file; the
    layers' names.

    moments: by a layer's place. scales: that were learned, by the name of the weight
    """
    graph = flatbuffer.graph_of(model)
    pairs = list(zip(layers(model), layers(float_model), strict=True))
    names = []
    for i, ((name, op), (_, twin)) in enumerate(pairs):
        real = weights(float_model, name, twin)
        if _name(graph, op) not in ends.products or real is None or not is_float(model, op):
            continue
        offset, source = operand(model, name, op, 2), operand(float_model, name, twin, 1)
        assert source is not None
        bias = None if offset is None else flatbuffer.constant(model, offset)
        seen = moments.get(i) or Moments.none(real[0].size)
        learned = scales.get(source.name.decode())
        scale = _scale(real, per_channel) if learned is None else np.array(learned, np.float64)
        zeros = np.zeros(len(real))
        found = settle_layer(
            real, zeros if bias is None else bias, seen, scale, None, LIMIT, options
        )
        _dequantized(model, op, as_in_file(name, found.q).astype(np.int8), found.s)
        if bias is not None:
            flatbuffer.set_constant(
                model, own(model, op, OPERANDS[name][2]), found.bias.astype(np.float32)
            )
        names.append(layer_of([source.name.decode()], []) or _name(graph, op))
    return names


def roomy(
    model: Any, outputs: Sequence[TensorSpec], ranges: Mapping[str, Range]
) -> dict[str, Range]:
    """The ranges with those of integer outputs wider than what the samples showed."""
    graph, found = flatbuffer.graph_of(model), dict(ranges)
    makers = Index(graph).makers
    for index, spec in zip(map(int, graph.outputs), outputs, strict=True):
        at: int | None = index
        while at is not None and _is_row(spec):
            name = graph.tensors[at].name.decode()
            if name in ranges:
                low, high = ranges[name]
                more = (high - low) * ROOM
                found[name] = (low - more if low < 0 else low, high + more if high > 0 else high)
            op = makers.get(at)
            moved = op is not None and flatbuffer.op_name(model, op) in _MOVES
            at = int(op.inputs[0]) if op is not None and moved else None
    return found


def _dequantized(model: Any, op: Any, integers: np.ndarray, scales: np.ndarray) -> None:
    """Let the operator read its weights from a DEQUANTIZE of integers, output channel first."""
    graph = flatbuffer.graph_of(model)
    held, real = flatbuffer.new("TensorT"), flatbuffer.new("TensorT")
    for tensor, kind in ((held, "INT8"), (real, "FLOAT32")):
        tensor.shape, tensor.type = list(integers.shape), flatbuffer.enum("TensorType", kind)
        tensor.buffer, tensor.hasRank = 0, True
        tensor.name = f"{_name(graph, op)}.{kind.lower()}".encode()
        graph.tensors.append(tensor)
    flatbuffer.set_constant(model, held, integers)
    held.quantization = flatbuffer.new("QuantizationParametersT")
    held.quantization.scale = scales.astype(np.float32).tolist()
    held.quantization.zeroPoint = [0] * len(scales)
    new = flatbuffer.new("OperatorT")
    new.opcodeIndex = flatbuffer.add_op(model, "DEQUANTIZE", _PER_CHANNEL)
    code = model.operatorCodes[new.opcodeIndex]
    code.version = max(code.version, _PER_CHANNEL)
    new.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "DequantizeOptions")
    new.builtinOptions = flatbuffer.new("DequantizeOptionsT")
    new.inputs, new.outputs = [len(graph.tensors) - 2], [len(graph.tensors) - 1]
    graph.operators.insert(graph.operators.index(op), new)
    op.inputs = [new.outputs[0] if k == 1 else int(t) for k, t in enumerate(op.inputs)]


def _is_row(spec: TensorSpec) -> bool:
    """Whether an output is no map: a row of classes, a few values, boxes."""
    wide = len(spec.shape) == 4 and int(np.prod(spec.shape[1:3])) > 1
    return kinds([spec])[spec.name] != "map" and not wide


def _one_row(model: Any, kind: str, op: Any) -> bool:
    """Whether a product has constant weights and one row of results."""
    shape = list(flatbuffer.graph_of(model).tensors[op.outputs[0]].shape)
    return int(np.prod(shape[:-1])) == 1 and weights(model, kind, op) is not None


def _name(graph: Any, op: Any) -> str:
    return str(graph.tensors[op.outputs[0]].name.decode())


def _scale(real: np.ndarray, per_channel: bool) -> np.ndarray:
    rows = np.abs(real.reshape(len(real), -1)).astype(np.float64)
    most = rows.max(1) if per_channel else rows.max(keepdims=True)[0]
    return np.where(most > 0, most, 1.0) / LIMIT
