"""Pooling: windows over (N, C, H, W), and over whole images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from edgecv.models.importing.layers import geometry, padded, sides_of
from edgecv.models.importing.reader import Node
from edgecv.models.importing.windows import beyond, counted

Sides = list[tuple[int, int]]


def _over(node: Node, kernel: Sequence[int], sides: Sides) -> list[int]:
    """How far the last window reaches beyond the padding on each axis, with ceil_mode."""
    if not node.attr("ceil_mode", 0):
        return [0] * len(kernel)
    steps, apart = geometry(node, "strides"), geometry(node, "dilations")
    axes = zip(node.shape()[2:], kernel, steps, apart, sides, strict=True)
    return [beyond(n, k, s, d, *pads) for n, k, s, d, pads in axes]


def max_pool(node: Node) -> fx.Node:
    node.image()
    if len(node.proto.output) > 1 and node.reader.uses[node.proto.output[1]]:
        node.refuse("its indices are used")
    kernel = node.attr("kernel_shape", None)
    sides = sides_of(node, kernel)
    sides = [(b, a + o) for (b, a), o in zip(sides, _over(node, kernel, sides), strict=True)]
    # behind a ReLU zero never wins, and an infinity would ruin the range of an int8 grid
    floor = 0.0 if node.x().target in (F.relu, F.relu6) else -math.inf
    x, padding = padded(node, node.x(), sides, floor)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        flat = [n for pair in reversed(sides) for n in pair]
        x, padding = node.call(F.pad, node.x(), tuple(flat), value=floor), (0, 0)
    strides, dilations = geometry(node, "strides"), geometry(node, "dilations")
    args = (tuple(kernel), tuple(strides), padding, tuple(dilations))
    return node.call(F.max_pool2d, x, *args)


def average_pool(node: Node) -> fx.Node:
    """Sums of windows over the number of values in each that count."""
    node.image()
    kernel, include = node.attr("kernel_shape", None), bool(node.attr("count_include_pad", 0))
    if geometry(node, "dilations") != [1, 1]:
        node.refuse("it is dilated")
    sides, strides = sides_of(node, kernel), tuple(geometry(node, "strides"))
    over = _over(node, kernel, sides)
    even = all(b == a and 2 * b <= k for (b, a), k in zip(sides, kernel, strict=True))
    if even and not any(over):
        padding = tuple(before for before, _ in sides)
        args = (tuple(kernel), strides, padding, False, include or not any(padding))
        return node.call(F.avg_pool2d, node.x(), *args)
    counts = [
        counted(n, k, s, pair, o, include)
        for n, k, s, pair, o in zip(node.shape()[2:], kernel, strides, sides, over, strict=True)
    ]
    every = [(b, a + o) for (b, a), o in zip(sides, over, strict=True)]
    flat = [n for pair in reversed(every) for n in pair]
    x = node.call(F.pad, node.x(), tuple(flat), value=0.0)
    y = node.call(F.avg_pool2d, x, tuple(kernel), strides)
    share = math.prod(kernel) / np.outer(*counts).astype("f4")
    if (share == 1).all():
        return y
    return node.call(torch.mul, y, node.buffer("share", share[None, None].astype("f4")))


def global_average_pool(node: Node) -> fx.Node:
    node.image()
    return node.call(F.adaptive_avg_pool2d, node.x(), 1)


def global_max_pool(node: Node) -> fx.Node:
    node.image()
    return node.call(F.adaptive_max_pool2d, node.x(), 1)
