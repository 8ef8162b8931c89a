"""A convolution's integers in a quantized .tflite, chosen by what its inputs look like.

The quantizer rounds each weight to the nearest integer; the scales stay, the integers are replaced
by those of `rounding.py`, with H = E[x xᵀ] seen on the float graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.stages.quantize._tflite_bias import is_float, layers, own
from edgecv.stages.quantize.rounding import columns, enough, round_weights

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")  # dense layers see too few columns for H


def measure_moments(
    float_model: Any, runs: Iterable[Callable[[int], np.ndarray]], count: int
) -> dict[int, np.ndarray]:
    """The sum of x xᵀ over the samples, (groups, K, K), by place among the layers.

    runs: for each of the count samples, a function from a tensor's index to its value
    """
    found: dict[int, np.ndarray] = {}
    few: set[int] = set()
    for value in runs:
        for i, (name, op) in enumerate(layers(float_model)):
            if name not in CONVOLUTIONS or i in few:
                continue
            x = _columns(float_model, name, op, value(int(op.inputs[0])))
            if x is None or not enough(x, count):
                few.add(i)
                continue
            found[i] = found.get(i, 0) + (x @ x.transpose(0, 2, 1)).astype(np.float64)
    return found


def round_layers(model: Any, float_model: Any, moments: dict[int, np.ndarray]) -> None:
    """Edit the quantized model in place: better integers for the scales that it holds."""
    pairs = zip(layers(model), layers(float_model), strict=True)
    for i, ((name, op), (_, twin)) in enumerate(pairs):
        if i not in moments or is_float(model, op):
            continue
        real = _weights(float_model, name, twin)
        assert real is not None
        tensor, h = own(model, op, 1), moments[i]
        scale = np.array(tensor.quantization.scale, np.float64)
        scale = np.broadcast_to(scale, len(real)).reshape(len(h), -1)
        q = round_weights(real.reshape(*scale.shape, -1), scale, h, 127).reshape(real.shape)
        back = (1, 2, 3, 0) if name == "DEPTHWISE_CONV_2D" else (0, 2, 3, 1)
        flatbuffer.set_constant(model, tensor, q.transpose(back).astype(np.int8))


def _weights(model: Any, name: str, op: Any) -> np.ndarray | None:
    """A convolution's weights as (O, C / groups, kh, kw); None where they are computed."""
    real = flatbuffer.constant(model, flatbuffer.graph_of(model).tensors[op.inputs[1]])
    if real is None:
        return None
    return real.transpose((3, 0, 1, 2) if name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2))


def _columns(model: Any, name: str, op: Any, x: np.ndarray) -> np.ndarray | None:
    """What it multiplies with its weights for one image x (1, H, W, C)."""
    real, how = _weights(model, name, op), op.builtinOptions
    if real is None:
        return None
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
