"""Layers of a .tflite: which operators they are, how their weights lie, what they read."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.stages.quantize.keep_float import names_of
from edgecv.stages.quantize.rounding import PLACES as SEEN
from edgecv.stages.quantize.rounding import columns

# Operands: input, weights, bias.
PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
# The order of a weight's axes that puts them as (O, I / groups, kh, kw), and back.
_THERE = {"DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}
_BACK = {"DEPTHWISE_CONV_2D": (1, 2, 3, 0), "FULLY_CONNECTED": (0, 1)}


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Operators with weights, each with its name, in the file's order."""
    for op in flatbuffer.graph_of(model).operators:
        name = flatbuffer.op_name(model, op)
        if name in PLACES:
            yield name, op


def is_float(model: Any, op: Any) -> bool:
    """Whether a layer's weights are float32."""
    weights = flatbuffer.graph_of(model).tensors[op.inputs[1]]
    return bool(weights.type == flatbuffer.enum("TensorType", "FLOAT32"))


def operand(model: Any, name: str, op: Any, place: int) -> Any | None:
    """The tensor at place 0, 1 or 2 (input, weights, bias), None where the layer has none."""
    at = PLACES[name][place]
    if len(op.inputs) <= at or op.inputs[at] < 0:
        return None
    return flatbuffer.graph_of(model).tensors[op.inputs[at]]


def weights(model: Any, name: str, op: Any) -> np.ndarray | None:
    """A layer's constant weights, output channel first; None where they are computed."""
    real = flatbuffer.constant(model, operand(model, name, op, 1))
    return None if real is None else there(name, real)


def there(name: str, weight: np.ndarray) -> np.ndarray:
    """The file's order of axes → (O, I / groups, kh, kw) or (O, I)."""
    return np.ascontiguousarray(weight.transpose(_THERE.get(name, (0, 3, 1, 2))))


def back(name: str, weight: np.ndarray) -> np.ndarray:
    """(O, I / groups, kh, kw) or (O, I) → the file's order of axes."""
    return np.ascontiguousarray(weight.transpose(_BACK.get(name, (0, 2, 3, 1))))


def seen_by(model: Any, name: str, op: Any, x: np.ndarray) -> np.ndarray | None:
    """What a layer multiplies with its weights for one image: (groups, K, places).

    x: its input (1, H, W, C), or (..., C) of a dense layer. None where the weights are computed,
    and for transposed convolutions: how many taps an output sees varies with its place.
    """
    real = weights(model, name, op)
    if real is None or name == "TRANSPOSE_CONV":
        return None
    if name == "FULLY_CONNECTED":
        rows = x.reshape(-1, real.shape[1])
        picked = np.linspace(0, len(rows) - 1, min(len(rows), SEEN)).astype(int)
        return rows[picked].T[None]
    how = op.builtinOptions
    strides, dilations = (how.strideH, how.strideW), (how.dilationHFactor, how.dilationWFactor)
    before, after = [0, 0], [0, 0]
    if how.padding == flatbuffer.enum("Padding", "SAME"):
        for side in (0, 1):
            size, stride = x.shape[1 + side], strides[side]
            reach = (real.shape[2 + side] - 1) * dilations[side] + 1
            missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
            before[side], after[side] = missing // 2, missing - missing // 2
    groups = x.shape[3] // real.shape[1]
    image = x[0].transpose(2, 0, 1)
    return columns(image, real.shape[2:], strides, dilations, (*before, *after), groups)


def own(model: Any, op: Any, place: int) -> Any:
    """The tensor of that input, copied first if another operator reads it too."""
    graph = flatbuffer.graph_of(model)
    index = int(op.inputs[place])
    if Counter(int(t) for o in graph.operators for t in o.inputs)[index] > 1:
        graph.tensors.append(copy.deepcopy(graph.tensors[index]))
        op.inputs = [len(graph.tensors) - 1 if i == place else t for i, t in enumerate(op.inputs)]
    return graph.tensors[op.inputs[place]]


def known_as(model: Any) -> dict[str, frozenset[str]]:
    """Names (`keep_float.py`) by the operator's output tensor.

    model: an editable .tflite whose names are `tidy`
    """
    graph = flatbuffer.graph_of(model)
    found = {}
    for op in graph.operators:
        name = graph.tensors[op.outputs[0]].name.decode()
        constants = [
            graph.tensors[t].name.decode()
            for t in op.inputs
            if t >= 0 and flatbuffer.constant(model, graph.tensors[t]) is not None
        ]
        found[name] = names_of(constants, [name])
    return found
