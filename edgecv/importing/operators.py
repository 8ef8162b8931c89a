"""The table of ONNX operators, and those without a kernel: activations, arithmetic, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.importing import layers
from edgecv.importing.reader import Node, Operator


def _function(function: Callable[..., Any]) -> Operator:
    """A function of one tensor, without attributes."""
    return lambda node: node.call(function, node.x())


def _clip(node: Node) -> fx.Node:
    bounds: list[float | None] = []
    for index in (1, 2):
        value = node.constant(index)
        if value is None and node.has(index):
            node.refuse("its bounds are computed, not constant")
        bounds.append(None if value is None else float(np.asarray(value).item()))
    if bounds == [0.0, 6.0]:
        return node.call(F.relu6, node.x())
    if bounds == [0.0, None]:
        return node.call(F.relu, node.x())
    return node.call(torch.clamp, node.x(), *bounds)


def _prelu(node: Node) -> fx.Node:
    slope = node.weight(1)
    assert slope is not None
    per_channel = (node.shape()[1], *[1] * (node.rank() - 2))  # behind the batch axis
    shape = tuple(slope.shape)
    if slope.numel() != 1 and shape not in (per_channel, (1, *per_channel)):
        node.refuse(f"its slope has shape {shape}, not one value a channel")
    layer = nn.PReLU(slope.numel())
    return node.module(layers.filled(layer, slope.flatten(), None), node.x())


def _hard_sigmoid(node: Node) -> fx.Node:
    """max(0, min(1, alpha x + beta)); torch's own has alpha 1/6."""
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return node.call(F.hardsigmoid, node.x())
    scaled = node.call(torch.mul, node.x(), alpha)
    return node.call(torch.clamp, node.call(torch.add, scaled, beta), 0.0, 1.0)


def _softmax(node: Node) -> fx.Node:
    axis = node.attr("axis", -1 if node.reader.opset >= 13 else 1)
    last = axis in (-1, node.rank() - 1)
    if node.reader.opset < 13 and not last:
        node.refuse("before opset 13 it flattens the axes behind its own")
    return node.call(torch.softmax, node.x(), dim=axis)


# --- arithmetic ----------------------------------------------------------------------------


def _binary(function: Callable[..., Any]) -> Operator:
    return lambda node: node.call(function, node.operand(0), node.operand(1))


def _add(node: Node) -> fx.Node:
    """Addition; behind a Linear without bias, a constant row becomes its bias."""
    for flow, other in ((0, 1), (1, 0)):
        name, bias = node.proto.input[flow], node.constant(other)
        made = node.reader.nodes.get(name)
        if made is None or bias is None or made.op != "call_module":
            continue
        layer = node.reader.root.get_submodule(str(made.target))
        fits = isinstance(layer, nn.Linear) and layer.bias is None
        if fits and bias.shape == (layer.out_features,) and node.reader.uses[name] == 1:
            layer.bias = nn.Parameter(torch.from_numpy(np.array(bias)))
            return made
    return node.call(torch.add, node.operand(0), node.operand(1))


def _concat(node: Node) -> fx.Node:
    parts = [node.operand(index) for index in range(len(node.proto.input))]
    return node.call(torch.cat, parts, dim=node.attr("axis", 1))


def _flatten(node: Node) -> fx.Node:
    axis = node.attr("axis", 1) % (node.rank() + 1 if node.attr("axis", 1) >= 0 else node.rank())
    if axis == 0:
        return node.call(torch.reshape, node.x(), (1, -1))
    x = node.call(torch.flatten, node.x(), axis) if axis < node.rank() else node.x()
    if axis == node.rank():
        x = node.call(torch.unsqueeze, x, -1)
    return x if axis == 1 else node.call(torch.flatten, x, 0, axis - 1)


def _reshape(node: Node) -> fx.Node:
    """Constant shapes. A first axis that stays is written -1, so any batch goes through."""
    target = node.integers("shape", 1)
    if target is None or (0 in target and node.attr("allowzero", 0)):
        node.refuse("its shape is not constant, or it is empty")
    shape = node.shape()
    target = [shape[axis] if n == 0 else n for axis, n in enumerate(target)]
    if -1 in target:
        known = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = math.prod(shape) // known
    if target and shape and target[0] == shape[0]:
        if len(target) == 2:
            return node.call(torch.flatten, node.x(), 1)
        return node.call(torch.reshape, node.x(), (-1, *target[1:]))
    return node.call(torch.reshape, node.x(), tuple(target))


def _transpose(node: Node) -> fx.Node:
    order = node.attr("perm", list(reversed(range(node.rank()))))
    return node.call(torch.permute, node.x(), tuple(order))


def _squeeze(node: Node) -> fx.Node:
    axes = node.integers("axes", 1)
    if axes is None:
        axes = [axis for axis, n in enumerate(node.shape()) if n == 1]
    return node.call(torch.squeeze, node.x(), tuple(axes))


def _unsqueeze(node: Node) -> fx.Node:
    axes, x = node.integers("axes", 1) or [], node.x()
    rank = node.rank() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = node.call(torch.unsqueeze, x, axis)
    return x


def _pad(node: Node) -> fx.Node:
    if node.attr("mode", "constant") != "constant":
        node.refuse(f"mode {node.attr('mode', '')!r}")
    pads, rank = node.integers("pads", 1), node.rank()
    axes = node.integers("axes", 3) or list(range(rank))
    if pads is None:
        node.refuse("its pads are not constant")
    value = node.constant(2)
    both = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    # torch lists the last axis first
    flat = [n for axis in reversed(range(rank)) for n in both.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        del flat[-2:]
    fill = 0.0 if value is None else float(np.asarray(value).item())
    return node.call(F.pad, node.x(), tuple(flat), value=fill)


def _resize(node: Node) -> fx.Node:
    """Nearest and bilinear by the grids that torch has: half_pixel, align_corners, asymmetric."""
    node.image()
    if node.attr("antialias", 0) or node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        node.refuse("antialiasing and aspect ratio policies are not read")
    (height, width), size = node.shape()[2:], _resized(node)
    mode = node.attr("mode", "nearest")
    grid = node.attr("coordinate_transformation_mode", "half_pixel")
    rounding = node.attr("nearest_mode", "round_prefer_floor")
    if mode == "linear" and grid in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        corners = grid == "align_corners"
        return node.call(F.interpolate, node.x(), size, mode="bilinear", align_corners=corners)
    floors = grid == "asymmetric" and rounding == "floor"
    # enlarged by whole numbers, half pixels rounded to the nearest repeat each pixel too
    whole = size[0] % height == 0 and size[1] % width == 0
    repeats = whole and grid == "half_pixel" and rounding.startswith("round_prefer")
    if mode != "nearest" or not (floors or repeats):
        node.refuse(f"mode {mode!r} with coordinates {grid!r} and rounding {rounding!r}")
    return node.call(F.interpolate, node.x(), size, mode="nearest")


def _resized(node: Node) -> tuple[int, int]:
    """(height, width) after a Resize, from its sizes or its scales."""
    sizes, scales = node.integers("sizes", 3), node.constant(2)
    if sizes is not None:
        return sizes[-2], sizes[-1]
    if scales is None or scales.size == 0:
        node.refuse("its size is computed, not constant")
    exact = [n * float(s) for n, s in zip(node.shape()[2:], scales[-2:], strict=True)]
    if not np.allclose(exact, np.rint(exact), rtol=1e-6):
        node.refuse(f"its scales {scales.tolist()} leave fractions of pixels")
    return round(exact[0]), round(exact[1])


def _through(node: Node) -> fx.Node:
    return node.x()


def _dropout(node: Node) -> fx.Node:
    if len(node.proto.output) > 1 and node.reader.uses[node.proto.output[1]]:
        node.refuse("its mask is used")
    return _through(node)


def _cast(node: Node) -> fx.Node:
    if node.attr("to", 0) != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(node.attr("to", 0)).lower()
        node.refuse(f"a cast to {kind}: only float32 flows")
    return _through(node)


OPERATORS: dict[str, Operator] = {
    "Add": _add,
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Div": _binary(torch.div),
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_average_pool,
    "GlobalMaxPool": layers.global_max_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function(F.hardswish),
    "Identity": _through,
    "LeakyRelu": lambda node: node.call(F.leaky_relu, node.x(), node.attr("alpha", 0.01)),
    "MatMul": layers.matmul,
    "MaxPool": layers.max_pool,
    "Mul": _binary(torch.mul),
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": layers.reduce_mean,
    "Relu": _function(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _function(torch.sigmoid),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _function(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
