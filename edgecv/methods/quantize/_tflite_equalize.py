"""Equalizing the channels of a float .tflite (`equalization.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import FORWARD, as_in_file, operand, own, weights
from edgecv.methods.quantize import equalization
from edgecv.methods.quantize.equalization import Layer, Ties

_PASS = ("RELU", "PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def equalize(model: Any, runs: Iterable[Callable[[int], np.ndarray]]) -> None:
    """Edit a float model in place so that it computes the same with evener channels.

    runs: for each sample a function from a tensor's index to its value (1, H, W, C)
    """
    layers, ties = _read(model)

    def channels() -> Iterator[Callable[[str], np.ndarray]]:
        yield from (partial(_by_channel, value) for value in runs)

    graph = flatbuffer.graph_of(model)
    for layer in equalization.solve(layers, ties, channels()):
        op = graph.operators[int(layer.name)]
        kind = flatbuffer.op_name(model, op)
        flatbuffer.set_constant(model, own(model, op, 1), as_in_file(kind, layer.weight))
        if layer.bias is not None:
            flatbuffer.set_constant(model, own(model, op, 2), layer.bias)


def _by_channel(value_of: Callable[[int], np.ndarray], name: str) -> np.ndarray:
    value = value_of(int(name))
    return value.reshape(-1, value.shape[-1]).T


def _read(model: Any) -> tuple[list[Layer], Ties]:
    """Its layers, named by operator; tensors are named by index."""
    graph = flatbuffer.graph_of(model)
    uses = Counter(int(t) for op in graph.operators for t in op.inputs)
    layers: list[Layer] = []
    ties = Ties(fixed={str(t) for t in (*graph.inputs, *graph.outputs)})
    for i, op in enumerate(graph.operators):
        name = flatbuffer.op_name(model, op)
        flows = [
            int(t)
            for t in op.inputs
            if t >= 0 and flatbuffer.constant(model, graph.tensors[t]) is None
        ]
        result, homogeneous = int(op.outputs[0]), _homogeneous(op)
        ends = [(str(t), str(result)) for t in flows]
        if name in FORWARD and len(flows) == 1 and uses[int(op.inputs[1])] == 1:
            real, offset = weights(model, name, op), operand(model, name, op, 2)
            assert real is not None
            bias = None if offset is None else flatbuffer.constant(model, offset)
            wide = graph.tensors[flows[0]].shape[-1]
            layers.append(Layer(str(i), real, bias, wide // real.shape[1], *ends[0]))
            if not homogeneous or wide % real.shape[1]:
                ties.fixed.add(str(result))
        elif homogeneous and _ties(model, name, op, flows):
            ties.pairs += ends
        else:
            ties.fixed |= {name for pair in ends for name in pair} | {str(result)}
    return layers, ties


def _homogeneous(op: Any) -> bool:
    """Whether what is fused into the operator commutes with a positive scale."""
    fused = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    kind = "ActivationFunctionType"
    return fused in (flatbuffer.enum(kind, "NONE"), flatbuffer.enum(kind, "RELU"))


def _ties(model: Any, name: str, op: Any, flows: list[int]) -> bool:
    """Whether the operator keeps each channel to itself: pooling, padding, sums of two branches."""
    tensors = flatbuffer.graph_of(model).tensors
    if name == "ADD":
        return len(flows) == 2 and len({tuple(tensors[t].shape) for t in flows}) == 1
    if name != "MEAN":
        return name in _PASS
    axes = flatbuffer.constant(model, tensors[op.inputs[1]])
    return axes is not None and sorted(axes.ravel().tolist()) == [1, 2]
