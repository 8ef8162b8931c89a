"""Activations with attributes, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.models.importing import layers
from edgecv.models.importing.reader import Node, Operator


def clip(node: Node) -> fx.Node:
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        value = node.constant(index)
        if value is None and node.has(index):
            node.refuse("its bounds are computed, not constant")
        bounds.append(node.attr(name, None) if value is None else float(np.asarray(value).item()))
    if bounds == [0.0, 6.0]:
        return node.call(F.relu6, node.x())
    if bounds[0] == 0.0 and (bounds[1] is None or bounds[1] >= np.finfo("f4").max):
        return node.call(F.relu, node.x())
    return node.x() if bounds == [None, None] else node.call(torch.clamp, node.x(), *bounds)


def prelu(node: Node) -> fx.Node:
    """max(0, x) + slope min(0, x), the slope broadcast; one value a channel is nn.PReLU."""
    slope = node.weight(1)
    assert slope is not None
    per_channel = (node.shape()[1], *[1] * (node.rank() - 2))  # behind the batch axis
    shape = tuple(slope.shape)
    if slope.numel() == 1 or shape in (per_channel, (1, *per_channel)):
        layer = nn.PReLU(slope.numel())
        return node.module(layers.filled(layer, slope.flatten(), None), node.x())
    below = node.call(torch.clamp, node.x(), None, 0.0)
    below = node.call(torch.mul, below, node.tensor(1))
    return node.call(torch.add, node.call(F.relu, node.x()), below)


def hard_sigmoid(node: Node) -> fx.Node:
    """max(0, min(1, alpha x + beta)); torch's own has alpha 1/6."""
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return node.call(F.hardsigmoid, node.x())
    scaled = node.call(torch.mul, node.x(), alpha)
    return node.call(torch.clamp, node.call(torch.add, scaled, beta), 0.0, 1.0)


def elu(node: Node) -> fx.Node:
    return node.call(F.elu, node.x(), node.attr("alpha", 1.0))


def celu(node: Node) -> fx.Node:
    return node.call(F.celu, node.x(), node.attr("alpha", 1.0))


def selu(node: Node) -> fx.Node:
    """gamma (max(0, x) + min(0, alpha (e^x - 1)))."""
    alpha, gamma = node.attr("alpha", 1.6732632), node.attr("gamma", 1.0507010)
    return node.call(torch.mul, node.call(F.elu, node.x(), alpha), gamma)


def gelu(node: Node) -> fx.Node:
    return node.call(F.gelu, node.x(), approximate=node.attr("approximate", "none"))


def swish(node: Node) -> fx.Node:
    """x sigmoid(alpha x)."""
    alpha = node.attr("alpha", 1.0)
    if alpha == 1.0:
        return node.call(F.silu, node.x())
    gate = node.call(torch.sigmoid, node.call(torch.mul, node.x(), alpha))
    return node.call(torch.mul, node.x(), gate)


def thresholded_relu(node: Node) -> fx.Node:
    """x where it is above alpha, else 0."""
    return node.call(F.threshold, node.x(), node.attr("alpha", 1.0), 0.0)


def shrink(node: Node) -> fx.Node:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    bias, lambd = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    if bias == 0.0:
        return node.call(F.hardshrink, node.x(), lambd)
    if bias != lambd:
        node.refuse(f"its bias {bias:g} is neither 0 nor its lambd {lambd:g}")
    return node.call(F.softshrink, node.x(), lambd)


def softmax(of: Callable[..., Any]) -> Operator:
    """Softmax or log softmax. Before opset 13 the axes from its own on are one."""

    def read(node: Node) -> fx.Node:
        rank, old = node.rank(), node.reader.opset < 13
        axis = node.attr("axis", 1 if old else -1)
        axis = axis + rank if axis < 0 else axis
        if not old or axis == rank - 1:
            return node.call(of, node.x(), dim=axis)
        flat = node.call(of, node.call(torch.flatten, node.x(), axis), dim=axis)
        return node.call(torch.reshape, flat, (-1, *node.shape()[1:]) if axis else node.shape())

    return read
