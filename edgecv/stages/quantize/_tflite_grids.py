"""Ranges that a grid can be made of: none of width 0, none too narrow for an engine's multiplier.

A layer's integers are scaled by s_x s_w / s_y. XNNPACK takes less than 256 of it; what a layer that
hardly ever answers was seen to give asks for more. A wider grid loses nothing there that another
layer could see: one level is then s_x s_w, the finest that the layer's own products tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, layers, weights
from edgecv.stages.quantize.ranges import Range

LARGEST = 128.0  # half of what XNNPACK takes
LEVELS, WEIGHT_LEVELS = 255, 127


def widened(model: Any, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges with those that are too narrow made wider upwards.

    model: the float model; ranges: by the name of a tensor
    """
    found, tensors = dict(ranges), flatbuffer.graph_of(model).tensors
    for kind, op in layers(model):
        source, result = (
            tensors[t].name.decode() for t in (op.inputs[OPERANDS[kind][0]], op.outputs[0])
        )
        real = weights(model, kind, op)
        if real is None or source not in found or result not in found:
            continue
        step = _width(found[source]) / LEVELS * float(np.abs(real).max()) / WEIGHT_LEVELS
        low, high = found[result]
        if _width((low, high)) < step / LARGEST * LEVELS:
            found[result] = (low, low + step * LEVELS)
    return {name: span if _width(span) > 0 else (0.0, 1.0) for name, span in found.items()}


def _width(span: Range) -> float:
    """Of the grid, which always holds 0."""
    return max(span[1], 0.0) - min(span[0], 0.0)
