"""Operators with weights: convolutions, dense layers, batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.models.importing.reader import Node

_CONVS = {3: nn.Conv1d, 4: nn.Conv2d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def geometry(node: Node, name: str) -> list[int]:
    """Strides or dilations, one a spatial axis."""
    return list(node.attr(name, [1] * (node.rank() - 2)))


def sides_of(node: Node, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis. SAME: out = ceil(in / stride)."""
    auto, spatial = node.attr("auto_pad", "NOTSET"), node.shape()[2:]
    if auto == "VALID":
        return [(0, 0)] * len(spatial)
    if auto in ("NOTSET", ""):
        pads = node.attr("pads", [0, 0] * len(spatial))
        return list(zip(pads[: len(spatial)], pads[len(spatial) :], strict=True))
    sides = []
    strides, dilations = geometry(node, "strides"), geometry(node, "dilations")
    for n, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        sides.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return sides


def padded(
    node: Node, x: fx.Node, sides: Sequence[tuple[int, int]], value: float = 0.0
) -> tuple[fx.Node, tuple[int, ...]]:
    """(x, padding): symmetric padding is left to the layer, the rest is done before it."""
    if all(before == after for before, after in sides):
        return x, tuple(before for before, _ in sides)
    flat = [n for pair in reversed(sides) for n in pair]  # torch lists the last axis first
    return node.call(F.pad, x, tuple(flat), value=value), (0,) * len(sides)


def conv(node: Node) -> fx.Node:
    kind = _kind(node, _CONVS)
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    out, per_group, *kernel = weight.shape
    groups = node.attr("group", 1)
    x, padding = padded(node, node.x(), sides_of(node, kernel))
    conv = kind(
        per_group * groups,
        out,
        tuple(kernel),
        tuple(geometry(node, "strides")),
        padding,
        tuple(geometry(node, "dilations")),
        groups,
        bias is not None,
    )
    return node.module(filled(conv, weight, bias), x)


def _kind(node: Node, kinds: dict[int, Any]) -> Any:
    kind = kinds.get(node.rank())
    if kind is None:
        node.refuse(f"its input has {node.rank()} axes, and {sorted(kinds)} are read")
    return kind


def conv_transpose(node: Node) -> fx.Node:
    """Uneven pads and those that follow from an output's shape are cut off behind the layer."""
    kind = _kind(node, _TRANSPOSED)
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    c_in, per_group, *kernel = weight.shape
    groups, rank = node.attr("group", 1), node.rank()
    strides, dilations = geometry(node, "strides"), geometry(node, "dilations")
    extra = node.attr("output_padding", [0] * (rank - 2))
    sides = _cut_sides(node, kernel)
    even = all(before == after and before >= 0 for before, after in sides)
    padding = tuple(before for before, _ in sides) if even else (0,) * (rank - 2)
    if not even:  # so much longer that nothing is cut which is not there
        after = [max(0, e - a) for e, (_, a) in zip(extra, sides, strict=True)]
        sides = [(b, a - e + x) for (b, a), e, x in zip(sides, extra, after, strict=True)]
        extra = after
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        node.refuse(f"output_padding {extra} with strides {strides}")
    conv = kind(
        c_in,
        per_group * groups,
        tuple(kernel),
        tuple(strides),
        padding,
        tuple(extra),
        groups,
        bias is not None,
        tuple(dilations),
    )
    y = node.module(filled(conv, weight, bias), node.x())
    if even:
        return y
    if any(n < 0 for pair in sides for n in pair):
        node.refuse(f"negative pads {sides}")
    flat = [-n for pair in reversed(sides) for n in pair]
    return node.call(F.pad, y, tuple(flat))


def _cut_sides(node: Node, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """What a transposed convolution takes off (before, after) each spatial axis."""
    shape, auto = node.attr("output_shape", None), node.attr("auto_pad", "NOTSET")
    if not shape and not auto.startswith("SAME"):
        return sides_of(node, kernel)
    strides, dilations = geometry(node, "strides"), geometry(node, "dilations")
    extra = node.attr("output_padding", [0] * len(kernel))
    spatial = node.shape()[2:]
    wanted = (
        shape[-len(kernel) :] if shape else [n * s for n, s in zip(spatial, strides, strict=True)]
    )
    sides = []
    for n, k, s, d, e, out in zip(spatial, kernel, strides, dilations, extra, wanted, strict=True):
        total = s * (n - 1) + e + (k - 1) * d + 1 - out
        small = total // 2
        upper = auto == "SAME_UPPER"
        sides.append((small, total - small) if upper else (total - small, small))
    return sides


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
    held, offset = node.constant(1), node.constant(2)
    fits = not node.attr("transA", 0) and held is not None
    if node.has(2) and (offset is None or offset.size not in (1, *offset.shape[-1:])):
        fits = False
    if not fits:
        return _product(node)
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    weight = (weight if node.attr("transB", 0) else weight.T) * node.attr("alpha", 1.0)
    if bias is not None:
        bias = bias.flatten() * node.attr("beta", 1.0)
        if bias.numel() not in (1, len(weight)):
            return _product(node)
    return _linear(node, weight, bias)


def _product(node: Node) -> fx.Node:
    """Gemm of what is no layer: both factors computed, or another C for every row."""
    a, b = (
        node.call(torch.transpose, node.tensor(i), 0, 1) if node.attr(name, 0) else node.tensor(i)
        for i, name in ((0, "transA"), (1, "transB"))
    )
    y = node.call(torch.matmul, a, b)
    if node.attr("alpha", 1.0) != 1.0:
        y = node.call(torch.mul, y, node.attr("alpha", 1.0))
    if not node.has(2):
        return y
    c = node.operand(2)
    if node.attr("beta", 1.0) != 1.0:
        c = node.call(torch.mul, node.tensor(2), node.attr("beta", 1.0))
    return node.call(torch.add, y, c)


def matmul(node: Node) -> fx.Node:
    weight = node.constant(1)
    if weight is None or weight.ndim != 2:
        return node.call(torch.matmul, node.tensor(0), node.tensor(1))
    return _linear(node, torch.from_numpy(np.array(weight)).T, None)


def batch_norm(node: Node) -> fx.Node:
    if node.attr("training_mode", 0):
        node.refuse("it was exported in training mode")
    gamma, beta, mean, var = (node.weight(index) for index in (1, 2, 3, 4))
    assert gamma is not None
    kind = _kind(node, _BATCH_NORMS)
    momentum = 1 - node.attr("momentum", 0.9)  # ONNX keeps the old share, torch takes the new
    layer = kind(len(gamma), eps=node.attr("epsilon", 1e-5), momentum=momentum)
    layer.running_mean, layer.running_var = mean, var
    return node.module(filled(layer, gamma, beta), node.x())
