"""Layers of an ov.Model: which nodes they are, how their weights lie, what grid they read."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.openvino.constants import constant, unpacks
from edgecv.graphs.openvino.nodes import kind, name, readers, source
from edgecv.runtime.layers import layer_of

# Nodes whose outputs are sums over one window of the input each -> convolution or dense layer.
FORWARD = {"Convolution": "conv", "GroupConvolution": "conv", "MatMul": "dense"}
TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
LAYERS = (*FORWARD, *TRANSPOSED)
COUNTED = "BinaryConvolution"  # of signs
# Of one group it moves nothing, and no kernel fuses it: what is to stay apart has it in between.
BETWEEN = "ShuffleChannels"
# Nodes that only move numbers, whose outputs lie on the grid of their first input.
KEEPS_GRID = frozenset((
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "StridedSlice", "Slice", "Split",
    "VariadicSplit", "Concat", "MaxPool", "Pad", BETWEEN,
))  # fmt: skip
_FAR = 8  # nodes between a constant and its layer


def quantized(node: Any) -> bool:
    """Whether what a node gives lies on an integer grid: that of a FakeQuantize."""
    while kind(node) in KEEPS_GRID:
        node = source(node)
    return kind(node) == "FakeQuantize"


def layer_name(node: Any) -> str:
    """The layer that a node is, as `edgecv bench --profile` calls it; "" where it is none."""
    if node is None or kind(node) not in (*FORWARD, COUNTED):
        return ""
    weight = constant(node, 1)
    return layer_of([] if weight is None else [name(weight)], (name(node),))


def reader_of(weight: Any) -> Any:
    """The layer that a constant is a weight of, None where it is of none."""
    node = weight
    for _ in range(_FAR):
        near = readers(node)
        if not near:
            return None
        node = near[0]
        if kind(node) in FORWARD:
            return node
        if not unpacks(node):
            return None
    return None


def output_axes(node: Any) -> tuple[int, ...]:
    """Which axes of a layer's weight, as it lies in the file, count its outputs: (O, I, kh, kw),
    grouped (G, O / G, I / G, kh, kw), dense (I, O) or, transposed, (O, I)."""
    if kind(node) == "GroupConvolution":
        return (0, 1)
    if kind(node) == "MatMul":
        return (0,) if node.get_attributes().get("transpose_b") else (1,)
    return (0,)


def outputs_first(node: Any, weight: np.ndarray) -> np.ndarray:
    """The file's order of axes -> (O, I / groups, kh, kw) or (O, I)."""
    axes = output_axes(node)
    if len(axes) == 2:
        return weight.reshape(-1, *weight.shape[2:])
    return weight.T if axes == (1,) else weight
