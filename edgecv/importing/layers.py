"""Operators with weights, and pooling: what has a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.importing.reader import Node

Sides = tuple[int, int, int, int]  # top, left, bottom, right: ONNX's order


def _sides(node: Node, kernel: Sequence[int]) -> Sides:
    """The padding of a convolution or pooling. SAME: out = ceil(in / stride)."""
    auto = node.attr("auto_pad", "NOTSET")
    if auto == "VALID":
        return 0, 0, 0, 0
    if auto == "NOTSET":
        top, left, bottom, right = node.attr("pads", [0, 0, 0, 0])
        return top, left, bottom, right
    strides, dilations = node.attr("strides", [1, 1]), node.attr("dilations", [1, 1])
    before, after = [], []
    for n, k, s, d in zip(node.shape()[2:], kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before[0], before[1], after[0], after[1]


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


def _padded(node: Node, sides: Sides, value: float = 0.0) -> tuple[Any, tuple[int, int]]:
    """(x, padding): symmetric padding is left to the layer, the rest is done before it."""
    top, left, bottom, right = sides
    if (top, left) == (bottom, right):
        return node.x(), (top, left)
    return node.call(F.pad, node.x(), (left, right, top, bottom), value=value), (0, 0)


def conv(node: Node) -> fx.Node:
    node.image()
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    out, per_group, *kernel = weight.shape
    groups = node.attr("group", 1)
    x, padding = _padded(node, _sides(node, kernel))
    conv = nn.Conv2d(
        per_group * groups,
        out,
        _pair(kernel),
        _pair(node.attr("strides", [1, 1])),
        padding,
        _pair(node.attr("dilations", [1, 1])),
        groups,
        bias is not None,
    )
    return node.module(filled(conv, weight, bias), x)


def conv_transpose(node: Node) -> fx.Node:
    node.image()
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    if node.attr("output_shape", None) or node.attr("auto_pad", "NOTSET").startswith("SAME"):
        node.refuse("its padding depends on the output's shape")
    c_in, per_group, *kernel = weight.shape
    groups = node.attr("group", 1)
    top, left, bottom, right = _sides(node, kernel)
    if (top, left) != (bottom, right):
        node.refuse(f"asymmetric pads {[top, left, bottom, right]}")
    conv = nn.ConvTranspose2d(
        c_in,
        per_group * groups,
        _pair(kernel),
        _pair(node.attr("strides", [1, 1])),
        (top, left),
        _pair(node.attr("output_padding", [0, 0])),
        groups,
        bias is not None,
        _pair(node.attr("dilations", [1, 1])),
    )
    return node.module(filled(conv, weight, bias), node.x())


def filled(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias.expand_as(layer.bias))
    return layer


def _linear(node: Node, weight: torch.Tensor, bias: torch.Tensor | None) -> fx.Node:
    out, features = weight.shape
    return node.module(filled(nn.Linear(features, out, bias is not None), weight, bias), node.x())


def gemm(node: Node) -> fx.Node:
    """alpha A B + beta C as nn.Linear, whose weight is B transposed."""
    if node.attr("transA", 0):
        node.refuse("transA is set")
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    weight = (weight if node.attr("transB", 0) else weight.T) * node.attr("alpha", 1.0)
    if bias is not None:
        bias = bias.flatten() * node.attr("beta", 1.0)
        if bias.numel() not in (1, len(weight)):
            node.refuse("its C is not one row")
    return _linear(node, weight, bias)


def matmul(node: Node) -> fx.Node:
    weight = node.constant(1)
    if weight is None or weight.ndim != 2:
        return node.call(torch.matmul, node.operand(0), node.operand(1))
    return _linear(node, torch.from_numpy(np.array(weight)).T, None)


def batch_norm(node: Node) -> fx.Node:
    if node.attr("training_mode", 0):
        node.refuse("it was exported in training mode")
    gamma, beta, mean, var = (node.weight(index) for index in (1, 2, 3, 4))
    assert gamma is not None
    kind = {4: nn.BatchNorm2d, 2: nn.BatchNorm1d, 3: nn.BatchNorm1d}.get(node.rank())
    if kind is None:
        node.refuse(f"its input has {node.rank()} axes")
    momentum = 1 - node.attr("momentum", 0.9)  # ONNX keeps the old share, torch takes the new
    layer = kind(len(gamma), eps=node.attr("epsilon", 1e-5), momentum=momentum)
    layer.running_mean, layer.running_var = mean, var
    return node.module(filled(layer, gamma, beta), node.x())


def max_pool(node: Node) -> fx.Node:
    node.image()
    if len(node.proto.output) > 1 and node.reader.uses[node.proto.output[1]]:
        node.refuse("its indices are used")
    kernel = node.attr("kernel_shape", None)
    # behind a ReLU zero never wins, and an infinity would ruin the range of an int8 grid
    floor = 0.0 if node.x().target in (F.relu, F.relu6) else -math.inf
    x, padding = _padded(node, _sides(node, kernel), floor)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        node.refuse("its pads are larger than half its kernel")
    return node.call(
        F.max_pool2d,
        x,
        _pair(kernel),
        _pair(node.attr("strides", [1, 1])),
        padding,
        _pair(node.attr("dilations", [1, 1])),
        bool(node.attr("ceil_mode", 0)),
    )


def average_pool(node: Node) -> fx.Node:
    node.image()
    kernel, include = node.attr("kernel_shape", None), bool(node.attr("count_include_pad", 0))
    if node.attr("dilations", [1, 1]) != [1, 1]:
        node.refuse("it is dilated")
    sides = _sides(node, kernel)
    if sides[:2] != sides[2:] and (not include or node.attr("ceil_mode", 0)):
        node.refuse(f"asymmetric pads {list(sides)} that are not counted")
    x, padding = _padded(node, sides)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        node.refuse("its pads are larger than half its kernel")
    strides = _pair(node.attr("strides", [1, 1]))
    ceil = bool(node.attr("ceil_mode", 0))
    return node.call(F.avg_pool2d, x, _pair(kernel), strides, padding, ceil, include)


def global_average_pool(node: Node) -> fx.Node:
    node.image()
    return node.call(F.adaptive_avg_pool2d, node.x(), 1)


def global_max_pool(node: Node) -> fx.Node:
    node.image()
    return node.call(F.adaptive_max_pool2d, node.x(), 1)


def reduce_mean(node: Node) -> fx.Node:
    rank, axes = node.rank(), node.integers("axes", 1)
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return node.x()
        axes = list(range(rank))
    axes = sorted(axis % rank for axis in axes)
    keep = bool(node.attr("keepdims", 1))
    if rank == 4 and axes == [2, 3]:  # TFLite converters know this as one MEAN
        pooled = node.call(F.adaptive_avg_pool2d, node.x(), 1)
        return pooled if keep else node.call(torch.flatten, pooled, 1)
    return node.call(torch.mean, node.x(), dim=axes, keepdim=keep)
