"""Weights and biases of a quantized .tflite, written anew by what its layers' inputs look like.

The quantizer rounds each weight to the nearest integer; the float graph, run on the samples, says
better (`rounding.py`, `settling.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.stages.quantize._tflite_layers import (
    PLACES,
    back,
    is_float,
    layers,
    operand,
    own,
    seen_by,
    weights,
)
from edgecv.stages.quantize.options import Options
from edgecv.stages.quantize.rounding import Moments
from edgecv.stages.quantize.settling import settle_layer


def measure_moments(
    float_model: Any, runs: Iterable[Callable[[int], np.ndarray]], count: int
) -> dict[int, Moments]:
    """What each layer multiplies with its weights, by its place among the layers.

    runs: for each of the count samples, a function from a tensor's index to its value
    """
    every = list(enumerate(layers(float_model)))
    found: dict[int, Moments] = {}
    for value in runs:
        for i, (name, op) in every:
            x = seen_by(float_model, name, op, value(int(op.inputs[PLACES[name][0]])))
            if x is not None:
                found.setdefault(i, Moments()).add(x, count)
    return found


def settle(model: Any, float_model: Any, moments: dict[int, Moments], options: Options) -> int:
    """Replace integers, scales and biases of the quantized model in place; how many weight scales
    had to rise. Layers that stayed float, or whose weights are computed, are left alone.
    """
    raised = 0
    # Quantizing inserts operators, never a layer with weights: the two lists pair up.
    pairs = zip(layers(model), layers(float_model), strict=True)
    for i, ((name, op), (_, twin)) in enumerate(pairs):
        real = weights(float_model, name, twin)
        if real is None or is_float(model, op):
            continue
        raised += _settle_one(model, float_model, name, op, twin, real, moments.get(i), options)
    return raised


def _settle_one(
    model: Any,
    float_model: Any,
    name: str,
    op: Any,
    twin: Any,
    real: np.ndarray,
    seen: Moments | None,
    options: Options,
) -> int:
    source, tensor = operand(model, name, op, 0), own(model, op, 1)
    offset = operand(float_model, name, twin, 2)
    bias = None if offset is None else flatbuffer.constant(float_model, offset)
    scale = np.array(tensor.quantization.scale, np.float64)
    fed = None if bias is None or source is None else float(source.quantization.scale[0])
    zeros = np.zeros(len(real)) if bias is None else bias
    seen = seen or Moments.none(real[0].size)
    found = settle_layer(real, zeros, seen, scale, fed, 127, options)
    flatbuffer.set_constant(model, tensor, back(name, found.q).astype(np.int8))
    tensor.quantization.scale = found.s.astype(np.float32).tolist()
    if fed is not None:
        held = own(model, op, PLACES[name][2])
        steps = (np.float32(fed) * found.s.astype(np.float32)).astype(np.float32)
        held.quantization.scale = steps.tolist()
        integers = np.rint(found.bias / steps.astype(np.float64)).astype(np.int32)
        flatbuffer.set_constant(model, held, integers)
    return found.raised
