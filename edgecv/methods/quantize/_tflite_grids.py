"""Ranges that a grid can be made of: none of width 0, none too narrow for an engine's numbers.

A layer's integers are scaled by s_x s_w / s_y. XNNPACK takes less than 256 of it; what a layer that
hardly ever answers was seen to give asks for more. A wider grid loses nothing there that another
layer could see: one level is then s_x s_w, the finest that the layer's own products tell apart.

LiteRT writes the ends of a fused ReLU6 as integers of 32 bits, of s_y: 6 is none where what a layer
answers is below 1e-7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, layers, weights
from edgecv.methods.quantize.ranges import Range

LARGEST = 128.0  # half of what XNNPACK takes
LEVELS, WEIGHT_LEVELS = 255, 127
FAR_ENDS = {"RELU6": (6.0, "RELU"), "RELU_N1_TO_1": (1.0, "NONE")}  # its end; what it is without


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


def without_far_ends(model: Any) -> int:
    """Edit a quantized model in place: a fused activation whose end is no 32-bit integer goes
    without it, since an int8 value ends long before; how many there were."""
    graph, count = flatbuffer.graph_of(model), 0
    kinds = {
        flatbuffer.enum("ActivationFunctionType", name): (end, flatbuffer.enum(
            "ActivationFunctionType", rest
        )) for name, (end, rest) in FAR_ENDS.items()
    }  # fmt: skip
    for op in graph.operators:
        fused = getattr(op.builtinOptions, "fusedActivationFunction", None)
        grid = graph.tensors[op.outputs[0]].quantization
        if fused not in kinds or grid is None or grid.scale is None or not len(grid.scale):
            continue
        end, rest = kinds[fused]
        if end >= 2**31 * float(grid.scale[0]):
            op.builtinOptions.fusedActivationFunction = rest
            count += 1
    return count


def _width(span: Range) -> float:
    """Of the grid, which always holds 0."""
    return max(span[1], 0.0) - min(span[0], 0.0)
