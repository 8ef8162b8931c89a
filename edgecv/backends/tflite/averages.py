"""Averages of int8 over an odd number of pixels → depthwise convolutions.

    AVERAGE_POOL(x; k, VALID)  =  conv(x; w)    w = 127 in steps of 1 / (127 k), a filter a channel

XNNPACK has no average of int8, so that LiteRT's own kernel runs between two parts of the network:
3x3 over 48 channels of 46x46 take 115 of the 4,300 µs of FastestDet, a depthwise convolution 10. An
odd number has no halves: both round to the same integer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.tflite.parts import numbers
from edgecv.backends.tflite.run import ONES
from edgecv.graphs.tflite import flatbuffer, geometry

STEP = 127


def averaged(model: Any) -> int:
    """Rewrite such averages of a ModelT in place; how many there were."""
    graph, count = flatbuffer.graph_of(model), 0
    for op in graph.operators:
        if flatbuffer.op_name(model, op) == "AVERAGE_POOL_2D" and _fits(graph, op):
            _convolve(model, op)
            count += 1
    return count


def _fits(graph: Any, op: Any) -> bool:
    options, tensor = op.builtinOptions, graph.tensors[op.inputs[0]]
    out = graph.tensors[op.outputs[0]]
    plain = options.fusedActivationFunction == flatbuffer.enum("ActivationFunctionType", "NONE")
    whole = tuple(out.shape[1:3]) == (1, 1)  # no gain in one window
    integer = tensor.type == flatbuffer.enum("TensorType", "INT8")
    odd = options.filterHeight * options.filterWidth % 2 == 1
    grid = tensor.quantization
    integer = integer and grid is not None and grid.scale is not None and len(grid.scale) == 1
    return integer and odd and plain and not whole and not geometry.is_same(options.padding)


def _convolve(model: Any, op: Any) -> None:
    graph, pool = flatbuffer.graph_of(model), op.builtinOptions
    tensor, name = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]].name.decode()
    kernel, channels = [pool.filterHeight, pool.filterWidth], int(tensor.shape[3])
    scale = np.float32(1 / (STEP * np.prod(kernel)))
    weight = flatbuffer.add_tensor(model, f"{name}{ONES}", [1, *kernel, channels])
    held = graph.tensors[weight]
    held.type = flatbuffer.enum("TensorType", "INT8")
    ones = np.full(held.shape, STEP, np.int8)
    flatbuffer.set_constant(model, held, ones)
    bias = numbers(model, f"{name}/zeros", np.zeros(channels))
    for one, step, axis in (
        (held, scale, 3),
        (graph.tensors[bias], scale * np.float32(tensor.quantization.scale[0]), 0),
    ):
        one.quantization = flatbuffer.new("QuantizationParametersT")
        one.quantization.scale, one.quantization.zeroPoint = [step] * channels, [0] * channels
        one.quantization.quantizedDimension = axis
    op.opcodeIndex = flatbuffer.add_op(model, "DEPTHWISE_CONV_2D", 3)
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "DepthwiseConv2DOptions")
    made = flatbuffer.new("DepthwiseConv2DOptionsT")
    made.padding, made.strideH, made.strideW = pool.padding, pool.strideH, pool.strideW
    made.depthMultiplier = made.dilationHFactor = made.dilationWFactor = 1
    op.builtinOptions, op.inputs = made, [op.inputs[0], weight, bias]
