"""What quantization asks of a .tflite's layers: what they multiply, what they are called."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv.graphs.names import names_of
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.geometry import pads
from edgecv.graphs.tflite.layers import weights
from edgecv.methods.quantize.rounding import columns, places_of, spread


def seen_by(model: Any, name: str, op: Any, x: np.ndarray, images: int) -> np.ndarray | None:
    """What a layer multiplies with its weights for one image of so many: (groups, K, places).

    x: its input (1, H, W, C), or (..., C) of a dense layer. None where the weights are computed,
    and for transposed convolutions: how many taps an output sees varies with its place.
    """
    real = weights(model, name, op)
    if real is None or name == "TRANSPOSE_CONV":
        return None
    most = places_of(math.prod(real.shape[1:]), images)
    if name == "FULLY_CONNECTED":
        rows = x.reshape(-1, real.shape[1])
        return rows[spread(len(rows), most)].T[None]
    how = op.builtinOptions
    strides, dilations = (how.strideH, how.strideW), (how.dilationHFactor, how.dilationWFactor)
    around = pads(x.shape[1:3], real.shape[2:], strides, dilations, how.padding)
    groups = x.shape[3] // real.shape[1]
    image = x[0].transpose(2, 0, 1)
    return columns(image, real.shape[2:], strides, dilations, around, groups, most)


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
