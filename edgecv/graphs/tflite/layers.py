"""Layers of a .tflite: which operators they are, what they read, how their weights lie."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer

SORTED = (
    "/sorted"  # behind the name of a tensor whose channels lie in another order than the file's
)
# Operator with weights -> which of its inputs are the input, the weights and the bias.
OPERANDS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
# Those whose outputs are sums over one window of the input each: all but transposed convolutions.
KINDS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "FULLY_CONNECTED": "dense"}
FORWARD = tuple(KINDS)
# The order of a weight's axes that puts them as PyTorch does: (O, I / groups, kh, kw) or (O, I).
AXES = {
    "CONV_2D": (0, 3, 1, 2),
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (0, 3, 1, 2),
}


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Operators with weights, each with its name, in the file's order."""
    for op in flatbuffer.graph_of(model).operators:
        name = flatbuffer.op_name(model, op)
        if name in OPERANDS:
            yield name, op


def is_float(model: Any, op: Any) -> bool:
    """Whether a layer's weights are float32."""
    weights = flatbuffer.graph_of(model).tensors[op.inputs[1]]
    return bool(weights.type == flatbuffer.enum("TensorType", "FLOAT32"))


def operand(model: Any, name: str, op: Any, place: int) -> Any | None:
    """The tensor at place 0, 1 or 2 (input, weights, bias), None where the layer has none."""
    at = OPERANDS[name][place]
    if len(op.inputs) <= at or op.inputs[at] < 0:
        return None
    return flatbuffer.graph_of(model).tensors[op.inputs[at]]


def weights(model: Any, name: str, op: Any) -> np.ndarray | None:
    """A layer's constant weights, output channel first; None where they are computed."""
    real = flatbuffer.constant(model, operand(model, name, op, 1))
    return None if real is None else outputs_first(name, real)


def outputs_first(name: str, weight: np.ndarray) -> np.ndarray:
    """The file's order of axes -> (O, I / groups, kh, kw) or (O, I)."""
    return np.ascontiguousarray(weight.transpose(AXES[name]))


def as_in_file(name: str, weight: np.ndarray) -> np.ndarray:
    """(O, I / groups, kh, kw) or (O, I) -> the file's order of axes."""
    return np.ascontiguousarray(weight.transpose(np.argsort(AXES[name])))


def output_axis(name: str) -> int:
    """Which axis of a weight, as it lies in the file, is the output channel."""
    return AXES[name][0]


def own(model: Any, op: Any, place: int) -> Any:
    """The tensor of that input, copied first if another operator reads it too: under a name of its
    own, but for weights, which are called as their layer."""
    graph = flatbuffer.graph_of(model)
    index = int(op.inputs[place])
    if Counter(int(t) for o in graph.operators for t in o.inputs)[index] > 1:
        made = copy.deepcopy(graph.tensors[index])
        if not made.name.endswith(b".weight"):
            made.name += f"/{len(graph.tensors)}".encode()
        graph.tensors.append(made)
        op.inputs = [len(graph.tensors) - 1 if i == place else t for i, t in enumerate(op.inputs)]
    return graph.tensors[op.inputs[place]]
