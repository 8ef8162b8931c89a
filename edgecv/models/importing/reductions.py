"""Sums, means and extremes over axes, the norms that are made of them, and products of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from edgecv.models.importing.reader import Node, Operator


def _axes(node: Node) -> list[int]:
    """The axes that go, from the front; all of them where none is named."""
    rank, axes = node.rank(), node.integers("axes", 1)
    return sorted(axis % rank for axis in axes) if axes else list(range(rank))


def _nothing(node: Node) -> bool:
    return not node.integers("axes", 1) and bool(node.attr("noop_with_empty_axes", 0))


def reduced(
    of: Callable[..., Any],
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
) -> Operator:
    """after(of(before(x), axes))."""

    def read(node: Node) -> fx.Node:
        x = node.x() if before is None else node.call(before, node.x())
        if not _nothing(node):
            x = node.call(of, x, dim=_axes(node), keepdim=bool(node.attr("keepdims", 1)))
        return x if after is None else node.call(after, x)

    return read


def mean(node: Node) -> fx.Node:
    if _nothing(node):
        return node.x()
    axes, keep = _axes(node), bool(node.attr("keepdims", 1))
    if node.rank() == 4 and axes == [2, 3]:  # TFLite converters know this as one MEAN
        pooled = node.call(F.adaptive_avg_pool2d, node.x(), 1)
        return pooled if keep else node.call(torch.flatten, pooled, 1)
    return node.call(torch.mean, node.x(), dim=axes, keepdim=keep)


def product(node: Node) -> fx.Node:
    """torch multiplies along one axis at a time."""
    x, keep = node.x(), bool(node.attr("keepdims", 1))
    for axis in [] if _nothing(node) else reversed(_axes(node)):
        x = node.call(torch.prod, x, dim=axis, keepdim=keep)
    return x


def extreme_index(of: Callable[..., Any]) -> Operator:
    """ArgMax or ArgMin; of equal values the first."""

    def read(node: Node) -> fx.Node:
        if node.attr("select_last_index", 0):
            node.refuse("of equal values it takes the last")
        axis, keep = node.attr("axis", 0), bool(node.attr("keepdims", 1))
        return node.call(of, node.x(), dim=axis, keepdim=keep)

    return read


def cumulative_sum(node: Node) -> fx.Node:
    axis = node.constant(1)
    if axis is None or node.attr("exclusive", 0):
        node.refuse("its axis is computed, or it leaves each value out of its own sum")
    x, dim = node.x(), int(axis.item())
    if node.attr("reverse", 0):
        back = node.call(torch.cumsum, node.call(torch.flip, x, (dim,)), dim)
        return node.call(torch.flip, back, (dim,))
    return node.call(torch.cumsum, x, dim)


def top_k(node: Node) -> list[fx.Node]:
    """(values, indices), sorted."""
    count = node.constant(1)
    if count is None:
        node.refuse("its k is computed, not constant")
    axis, largest = node.attr("axis", -1), bool(node.attr("largest", 1))
    k = int(count.item())
    return [node.call(_top, node.x(), k, axis, largest, part) for part in (0, 1)]


def _top(x: torch.Tensor, k: int, axis: int, largest: bool, part: int) -> torch.Tensor:
    return torch.topk(x, k, axis, largest)[part]


def einsum(node: Node) -> fx.Node:
    parts = [node.tensor(index) for index in range(len(node.proto.input))]
    return node.call(torch.einsum, node.attr("equation", ""), *parts)


# --- norms ---------------------------------------------------------------------------------


def layer_norm(node: Node) -> fx.Node:
    """(x - mean) / sqrt(var + eps) over the axes from `axis` on, times scale plus bias."""
    rank, shape = node.rank(), node.shape()
    axis, eps = node.attr("axis", -1) % rank, node.attr("epsilon", 1e-5)
    if any(name and node.reader.uses[name] for name in node.proto.output[1:]):
        node.refuse("its mean or deviation is used")
    over = shape[axis:]
    if node.shape(1) == over and (not node.has(2) or node.shape(2) == over):
        bias = node.tensor(2) if node.has(2) else None
        return node.call(F.layer_norm, node.x(), over, node.tensor(1), bias, eps)
    y = node.call(torch.mul, node.call(F.layer_norm, node.x(), over, eps=eps), node.tensor(1))
    return node.call(torch.add, y, node.tensor(2)) if node.has(2) else y


def rms_norm(node: Node) -> fx.Node:
    """x / sqrt(mean(x²) + eps) over the axes from `axis` on, times scale."""
    axis, eps = node.attr("axis", -1) % node.rank(), node.attr("epsilon", 1e-5)
    squares = node.call(torch.mul, node.x(), node.x())
    over = list(range(axis, node.rank()))
    size = node.call(torch.mean, squares, dim=over, keepdim=True)
    size = node.call(torch.rsqrt, node.call(torch.add, size, eps))
    return node.call(torch.mul, node.call(torch.mul, node.x(), size), node.tensor(1))


def instance_norm(node: Node) -> fx.Node:
    """Each channel of each image by its own mean and variance."""
    eps = node.attr("epsilon", 1e-5)
    return node.call(F.instance_norm, node.x(), weight=node.tensor(1), bias=node.tensor(2), eps=eps)


def group_norm(node: Node) -> fx.Node:
    """Groups of channels by their own mean and variance; before opset 21 a scale a group."""
    groups, channels = node.attr("num_groups", 1), node.shape()[1]
    scale, bias = node.weight(1), node.weight(2)
    assert scale is not None
    assert bias is not None
    if node.reader.opset < 21:
        scale, bias = (t.repeat_interleave(channels // groups) for t in (scale, bias))
    w = node.buffer(node.proto.input[1], scale.numpy())
    b = node.buffer(node.proto.input[2], bias.numpy())
    return node.call(F.group_norm, node.x(), groups, w, b, node.attr("epsilon", 1e-5))


def lp_norm(node: Node) -> fx.Node:
    """x / |x|_p along an axis."""
    axis, p = node.attr("axis", -1), node.attr("p", 2)
    size = node.call(torch.linalg.vector_norm, node.x(), float(p), dim=axis, keepdim=True)
    return node.call(torch.div, node.x(), size)


def mean_variance(node: Node) -> fx.Node:
    """(x - mean) / sqrt(E[x²] - mean²) over the axes."""
    axes = node.attr("axes", [0, 2, 3])
    mean = node.call(torch.mean, node.x(), dim=list(axes), keepdim=True)
    centred = node.call(torch.sub, node.x(), mean)
    squares = node.call(torch.mul, centred, centred)
    spread = node.call(torch.sqrt, node.call(torch.mean, squares, dim=list(axes), keepdim=True))
    return node.call(torch.div, centred, node.call(torch.add, spread, 1e-9))


def local_response(node: Node) -> fx.Node:
    """x / (bias + alpha / size * sum of squares of neighbouring channels)^beta.

    The sum is a 1x1 convolution by a band of ones, which every engine has.
    """
    node.image()
    size, channels = node.attr("size", 1), node.shape()[1]
    before = (size - 1) // 2
    apart = np.arange(channels)[None] - np.arange(channels)[:, None]  # neighbour - channel
    band = ((apart >= -before) & (apart <= size - 1 - before)).astype("f4")
    weight = node.buffer(
        "neighbours", band[:, :, None, None] * np.float32(node.attr("alpha", 1e-4) / size)
    )
    squares = node.call(torch.mul, node.x(), node.x())
    energy = node.call(torch.add, node.call(F.conv2d, squares, weight), node.attr("bias", 1.0))
    return node.call(torch.mul, node.x(), node.call(torch.pow, energy, -node.attr("beta", 0.75)))
