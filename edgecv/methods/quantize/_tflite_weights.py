"""Weights and biases of a quantized .tflite, written anew by what its layers' inputs look like.

The quantizer rounds each weight to the nearest integer; the float graph, run on the samples, says
better (`rounding.py`, `layer_rounding.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.cores import ahead
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import is_float, layers, operand, weights
from edgecv.methods.quantize._tflite_slots import Place
from edgecv.methods.quantize.layer_rounding import Settled, settle_layer
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.rounding import Moments

LIMIT = 127  # the largest integer that the quantizer gives a weight


def settle(model: Any, float_model: Any, moments: dict[int, Moments], options: Options) -> int:
    """Replace integers, scales and biases of the quantized model in place; how many weight scales
    had to rise. Layers that stayed float, or whose weights are computed, are left alone.
    """
    # Quantizing inserts operators, never a layer with weights: the two lists pair up.
    pairs = zip(layers(model), layers(float_model), strict=True)
    every = []
    for i, ((name, op), (_, twin)) in enumerate(pairs):
        real = weights(float_model, name, twin)
        if real is None or is_float(model, op):
            continue
        offset = operand(float_model, name, twin, 2)
        bias = None if offset is None else flatbuffer.constant(float_model, offset)
        zeros = np.zeros(len(real)) if bias is None else bias
        place, seen = Place(model, name, op), moments.get(i) or Moments.none(real[0].size)
        every.append((place, real, zeros, seen))

    def settled(one: tuple[Place, np.ndarray, np.ndarray, Moments]) -> Settled:
        place, real, bias, seen = one
        return settle_layer(real, bias, seen, place.scale, place.input_scale, LIMIT, options)

    raised = 0
    for (place, *_), made in zip(every, ahead(settled, every), strict=True):
        place.write(made.q, made.s, made.bias)
        raised += made.raised
    return raised
