"""Biases of a quantized .tflite: b' = b + (w - s_w w_q) E[x], b_q = round(b' / (s_x s_w)).

Rounding a layer's weights shifts the mean of its output by (s_w w_q - w) E[x]; depthwise networks
do not forgive it, and the bias can take it out (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2; E[x] is measured here).

A channel that training left dead (|w| ~ 1e-9, any bias) has so small an s_w that b_q overflows
int32 and wraps to the other sign. Its scale is raised until b_q fits: s_w >= |b'| / (s_x LIMIT).
Its weights then round to zero, and the channel stays the constant that it was (TensorFlow's own
converter does so as well: AdjustWeightsForBiasScale).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer

# Half of int32, so that the products added to a bias cannot wrap either.
LIMIT = 2**30
# Operands: input, weights, bias.
_PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}


def correct_biases(model: Any, float_model: Any, means: Mapping[str, np.ndarray]) -> int:
    """Edit the quantized model in place; how many weight scales had to rise.

    means: E[x] per channel (C,) by the float model's tensor names. Layers whose weights or bias
    are not constants are left alone.
    """
    count = 0
    # Quantizing inserts operators, never a layer with weights: the two lists pair up.
    for (name, op), (_, twin) in zip(layers(model), layers(float_model), strict=True):
        x, w, b = _PLACES[name]
        if len(op.inputs) <= b or op.inputs[b] < 0 or is_float(model, op):
            continue
        floats = flatbuffer.graph_of(float_model).tensors
        source, weights, bias = (floats[twin.inputs[i]] for i in (x, w, b))
        real, offset = (flatbuffer.constant(float_model, t) for t in (weights, bias))
        if real is not None and offset is not None:
            mean = means[source.name.decode()]
            count += _correct(model, name, op, real, offset, mean)
    return count


def _correct(
    model: Any, name: str, op: Any, real: np.ndarray, bias: np.ndarray, mean: np.ndarray
) -> int:
    """One layer. real: its float weights; bias: float (O,); mean: E[x] (C,)."""
    x_at, w_at, b_at = _PLACES[name]
    x = flatbuffer.graph_of(model).tensors[op.inputs[x_at]]
    w, b = own(model, op, w_at), own(model, op, b_at)
    axis = real.ndim - 1 if name == "DEPTHWISE_CONV_2D" else 0
    across = tuple(-1 if i == axis else 1 for i in range(real.ndim))
    s_x, s_w = float(x.quantization.scale[0]), np.array(w.quantization.scale, np.float64)
    q = flatbuffer.constant(model, w)
    assert q is not None
    error = real - q * (s_w.reshape(across) if s_w.size > 1 else s_w)
    wanted = bias + _mean_output(name, error, mean)
    need = np.abs(wanted) / (s_x * LIMIT)
    new = np.maximum(s_w, need if s_w.size > 1 else need.max()).astype(np.float32)
    raised = new > s_w.astype(np.float32)
    if raised.any():
        spread, changed = (a.reshape(across) if a.size > 1 else a for a in (new, raised))
        q = np.where(changed, np.clip(np.rint(real / spread), -127, 127), q)
        flatbuffer.set_constant(model, w, q.astype(np.int8))
        w.quantization.scale = new.tolist()
    scale = (np.float32(s_x) * new).astype(np.float32)
    b.quantization.scale = scale.tolist()
    flatbuffer.set_constant(model, b, np.rint(wanted / scale).astype(np.int32))
    return int(raised.sum())


def _mean_output(name: str, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The layer's mean output (O,) for inputs of that mean (C,), borders not counted."""
    if name == "DEPTHWISE_CONV_2D":  # (1, kh, kw, C * multiplier)
        return weights.sum((0, 1, 2)) * np.repeat(mean, weights.shape[-1] // len(mean))
    if name == "TRANSPOSE_CONV":  # how many taps an output sees varies with its place
        return np.zeros(len(weights))
    taps = weights.reshape(len(weights), -1, weights.shape[-1]).sum(1)  # (O, C / groups)
    groups = len(mean) // taps.shape[1]
    if groups * taps.shape[1] != len(mean) or len(taps) % max(groups, 1):
        return np.zeros(len(weights))  # a dense layer that flattens its input by itself
    parts = np.repeat(mean.reshape(groups, -1), len(taps) // groups, axis=0)
    return np.asarray((taps * parts).sum(1))


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Operators with weights, each with its name, in the file's order."""
    for op in flatbuffer.graph_of(model).operators:
        name = flatbuffer.op_name(model, op)
        if name in _PLACES:
            yield name, op


def is_float(model: Any, op: Any) -> bool:
    """Whether a layer's weights stayed float32."""
    weights = flatbuffer.graph_of(model).tensors[op.inputs[1]]
    return bool(weights.type == flatbuffer.enum("TensorType", "FLOAT32"))


def own(model: Any, op: Any, place: int) -> Any:
    """That operand's tensor, copied first if another operator reads it too."""
    graph = flatbuffer.graph_of(model)
    index = int(op.inputs[place])
    if Counter(int(t) for o in graph.operators for t in o.inputs)[index] > 1:
        graph.tensors.append(copy.deepcopy(graph.tensors[index]))
        op.inputs = [len(graph.tensors) - 1 if i == place else t for i, t in enumerate(op.inputs)]
    return graph.tensors[op.inputs[place]]
