"""Operators that move values: reshapes, slices, shuffles, padding, resizing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from edgecv.graphs.onnx.resizing import axis_matrix
from edgecv.models.importing.reader import Node


def concat(node: Node) -> fx.Node:
    parts = [node.tensor(index) for index in range(len(node.proto.input))]
    return node.call(torch.cat, parts, dim=node.attr("axis", 1))


def flatten(node: Node) -> fx.Node:
    axis = node.attr("axis", 1) % (node.rank() + 1 if node.attr("axis", 1) >= 0 else node.rank())
    if axis == 0:
        return node.call(torch.reshape, node.x(), (1, -1))
    x = node.call(torch.flatten, node.x(), axis) if axis < node.rank() else node.x()
    if axis == node.rank():
        x = node.call(torch.unsqueeze, x, -1)
    return x if axis == 1 else node.call(torch.flatten, x, 0, axis - 1)


def reshape(node: Node) -> fx.Node:
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
            return node.call(torch.flatten, node.x(), 1) if len(shape) > 1 else node.x()
        return node.call(torch.reshape, node.x(), (-1, *target[1:]))
    return node.call(torch.reshape, node.x(), tuple(target))


def transpose(node: Node) -> fx.Node:
    order = node.attr("perm", list(reversed(range(node.rank()))))
    return node.call(torch.permute, node.x(), tuple(order))


def squeeze(node: Node) -> fx.Node:
    axes = node.integers("axes", 1)
    if axes is None:
        axes = [axis for axis, n in enumerate(node.shape()) if n == 1]
    return node.call(torch.squeeze, node.x(), tuple(axes))


def unsqueeze(node: Node) -> fx.Node:
    axes, x = node.integers("axes", 1) or [], node.x()
    rank = node.rank() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = node.call(torch.unsqueeze, x, axis)
    return x


def expand(node: Node) -> fx.Node:
    """Broadcast to a shape; a 1 in the shape leaves what is there."""
    target = node.integers("shape", 1)
    if target is None:
        node.refuse("its shape is computed, not constant")
    shape = np.broadcast_shapes(node.shape(), tuple(target))
    keep = [
        -1 if old == new else new for old, new in zip(node.shape()[::-1], shape[::-1], strict=False)
    ]
    return node.call(torch.Tensor.expand, node.x(), (*shape[: len(shape) - len(keep)], *keep[::-1]))


def tile(node: Node) -> fx.Node:
    repeats = node.integers("repeats", 1)
    if repeats is None:
        node.refuse("its repeats are computed, not constant")
    return node.call(torch.Tensor.repeat, node.x(), tuple(repeats))


# --- parts ---------------------------------------------------------------------------------


def _cut(node: Node, x: fx.Node, axis: int, start: int, end: int, step: int = 1) -> fx.Node:
    """x[..., start:end:step, ...] with 0 <= start <= end."""
    every = slice(None)
    where = (every,) * axis + (slice(start, end, step),)
    return node.call(operator.getitem, x, where)


def cut(node: Node) -> fx.Node:
    """Slice: constant bounds, any step; a negative step is the mirrored slice of the mirrored x."""
    starts, ends = node.integers("starts", 1), node.integers("ends", 2)
    axes, steps = node.integers("axes", 3), node.integers("steps", 4)
    if starts is None or ends is None:
        node.refuse("its bounds are computed, not constant")
    shape, x = node.shape(), node.x()
    axes = list(range(len(starts))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        axis %= len(shape)
        n = shape[axis]
        if step == 0:
            node.refuse("its step is 0")
        begin, stop, _ = slice(start, None if step < 0 and end < -n else end, step).indices(n)
        if len(range(begin, stop, step)) == 0:
            node.refuse("nothing is left of it")
        if step < 0:
            x = node.call(torch.flip, x, (axis,))
            begin, stop, step = n - 1 - begin, n - 1 - stop, -step
        if (begin, stop, step) != (0, n, 1):
            x = _cut(node, x, axis, begin, stop, step)
    return x


def split(node: Node) -> list[fx.Node]:
    sizes, count = node.integers("split", 1), len(node.proto.output)
    axis = node.attr("axis", 0) % node.rank()
    n = node.shape()[axis]
    if sizes is None:
        each = -(-n // node.attr("num_outputs", count))
        sizes = [min(each, n - start) for start in range(0, n, each)]
    ends = np.cumsum(sizes).tolist()
    if len(ends) != count or ends[-1] != n:
        node.refuse(f"parts of {sizes} of an axis of {n}")
    return [
        _cut(node, node.x(), axis, end - size, end) for size, end in zip(sizes, ends, strict=True)
    ]


def gather(node: Node) -> fx.Node:
    """x[..., indices, ...]; an evenly spaced list of constant indices is a slice."""
    axis = node.attr("axis", 0) % node.rank()
    held = node.constant(1)
    if held is None:
        if not node.has(1) or node.shape(1) == ():
            node.refuse("its index is computed, not constant")
        flat = node.call(torch.flatten, node.x(1))
        return _taken(node, axis, flat, node.shape(1))
    n = node.shape()[axis]
    indices = np.where(held < 0, held + n, held).astype(np.int64)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= n:
        node.refuse(f"its indices go beyond an axis of {n}")
    if indices.ndim == 0:
        return node.call(torch.select, node.x(), axis, int(indices))
    steps = np.unique(np.diff(indices)) if indices.ndim == 1 else np.zeros(0)
    if indices.ndim == 1 and (indices.size == 1 or (len(steps) == 1 and steps[0] > 0)):
        step = int(steps[0]) if len(steps) else 1
        return _cut(node, node.x(), axis, int(indices[0]), int(indices[-1]) + 1, step)
    return _taken(node, axis, node.buffer(node.proto.input[1], indices.ravel()), indices.shape)


def _taken(node: Node, axis: int, flat: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    x = node.reader.nodes.get(node.proto.input[0]) or node.tensor(0)
    taken = node.call(torch.index_select, x, axis, flat)
    if len(shape) == 1:
        return taken
    before, after = node.shape()[:axis], node.shape()[axis + 1 :]
    if axis:
        before = (-1, *before[1:])
    return node.call(torch.reshape, taken, (*before, *shape, *after))


def gather_elements(node: Node) -> fx.Node:
    indices = node.tensor(1)
    return node.call(torch.gather, node.x(), node.attr("axis", 0), indices)


# --- shuffles ------------------------------------------------------------------------------


def depth_to_space(node: Node) -> fx.Node:
    """DCR: channel (i, j, c) -> pixel (i, j) of channel c; CRD: (c, i, j), torch's pixel shuffle.

    DCR is a pixel shuffle behind a reordering of the channels.
    """
    node.image()
    block, channels = node.attr("blocksize", 1), node.shape()[1]
    x = node.x()
    if node.attr("mode", "DCR") == "DCR":
        order = np.arange(channels).reshape(block * block, -1).T.ravel()
        x = node.call(torch.index_select, x, 1, node.buffer("order", order))
    return node.call(F.pixel_shuffle, x, block)


def space_to_depth(node: Node) -> fx.Node:
    """Pixel (i, j) of channel c -> channel (i, j, c): torch's unshuffle, its channels reordered."""
    node.image()
    block, channels = node.attr("blocksize", 1), node.shape()[1]
    x = node.call(F.pixel_unshuffle, node.x(), block)
    order = np.arange(channels * block * block).reshape(channels, -1).T.ravel()
    return node.call(torch.index_select, x, 1, node.buffer("order", order))


# --- padding and resizing ------------------------------------------------------------------

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(node: Node) -> fx.Node:
    mode = _MODES.get(node.attr("mode", "constant"))
    pads, rank = node.integers("pads", 1), node.rank()
    axes = node.integers("axes", 3) or list(range(rank))
    if pads is None or mode is None:
        node.refuse("its pads are not constant, or its mode is unknown")
    value = node.constant(2)
    both = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    # torch lists the last axis first
    flat = [n for axis in reversed(range(rank)) for n in both.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        del flat[-2:]
    if not any(flat):
        return node.x()
    if mode == "constant":
        fill = node.attr("value", 0.0) if value is None else float(np.asarray(value).item())
        return node.call(F.pad, node.x(), tuple(flat), value=fill)
    if min(flat) < 0 or len(flat) > 2 * (rank - 2):
        node.refuse(f"mode {node.attr('mode', '')!r} with pads {pads}")
    flat += [0, 0] * (rank - 2 - len(flat) // 2)
    return node.call(F.pad, node.x(), tuple(flat), mode=mode)


def resize(node: Node) -> fx.Node:
    """By torch's own functions where one has that grid, else row by row and column by column."""
    node.image()
    (height, width), size = node.shape()[2:], _resized(node)
    mode = node.attr("mode", "nearest")
    grid = node.attr("coordinate_transformation_mode", "half_pixel")
    rounding = node.attr("nearest_mode", "round_prefer_floor")
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" or grid == "tf_crop_and_resize":
        node.refuse("it resizes a part of an image, or keeps its proportions")
    exact = _exact(node, size)
    if size == (height, width) and exact:
        return node.x()
    plain = exact and not node.attr("antialias", 0)
    if mode == "linear" and plain and grid in ("half_pixel", "align_corners"):
        corners = grid == "align_corners"
        return node.call(F.interpolate, node.x(), size, mode="bilinear", align_corners=corners)
    usual = node.attr("cubic_coeff_a", -0.75) == -0.75 and not node.attr("exclude_outside", 0)
    if mode == "cubic" and grid in ("half_pixel", "align_corners") and usual and plain:
        corners = grid == "align_corners"
        return node.call(F.interpolate, node.x(), size, mode="bicubic", align_corners=corners)
    if mode == "nearest":
        return _nearest(node, grid, rounding, size)
    return _mixed(node, size)


def _exact(node: Node, size: tuple[int, int]) -> bool:
    """Whether the scales that are given are those of the sizes, as torch computes them."""
    scales = node.constant(2)
    if scales is None or not scales.size:
        return True
    real = [m / n for m, n in zip(size, node.shape()[2:], strict=True)]
    return bool(np.allclose(scales[-2:], real, rtol=1e-6, atol=0))


def _nearest(node: Node, grid: str, rounding: str, size: tuple[int, int]) -> fx.Node:
    """Rows and columns repeated, or picked by the list of what each one reads."""
    places = [_places(node, grid, axis, n) for axis, n in zip((2, 3), size, strict=True)]
    rounds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if rounding not in rounds:
        node.refuse(f"rounding {rounding!r}")
    shape = node.shape()[2:]
    picked = [
        np.clip(rounds[rounding](p), 0, n - 1).astype(np.int64)
        for p, n in zip(places, shape, strict=True)
    ]
    plain = [np.arange(m) * n // m for m, n in zip(size, shape, strict=True)]
    if all(np.array_equal(a, b) for a, b in zip(picked, plain, strict=True)):
        return node.call(F.interpolate, node.x(), size, mode="nearest")
    x = node.x()
    for axis, indices in zip((2, 3), picked, strict=True):
        if not np.array_equal(indices, np.arange(shape[axis - 2])):
            x = node.call(torch.index_select, x, axis, node.buffer("pixels", indices))
    return x


def _mixed(node: Node, size: tuple[int, int]) -> fx.Node:
    """W_h x W_w': any mode and grid, as two products of matrices."""
    x, scales = node.x(), node.constant(2)
    scales = None if scales is None or not scales.size else scales
    for axis, n in zip((3, 2), size[::-1], strict=True):
        old, opsets = node.shape()[axis], node.reader.opset_imports
        weight = axis_matrix(node.proto, opsets, node.rank(), axis, old, n, scales)
        if weight is None:
            mode, grid = (node.attr(k, "") for k in ("mode", "coordinate_transformation_mode"))
            node.refuse(f"mode {mode!r} with coordinates {grid!r}")
        weight = weight.astype(np.float32)
        if np.array_equal(weight, np.eye(n, old)):
            continue
        if axis == 3:
            x = node.call(torch.matmul, x, node.buffer("columns", weight.T))
        else:
            x = node.call(torch.matmul, node.buffer("rows", weight), x)
    return x


def _places(node: Node, grid: str, axis: int, size: int) -> np.ndarray:
    """Where each of `size` values along an axis looks in the input: float64 (size,).

    onnx/docs/Operators.md, Resize: coordinate_transformation_mode.
    """
    old, scales = node.shape()[axis], node.constant(2)
    scale = size / old
    if scales is not None and scales.size:
        scale = float(scales[axis - 4])
    x = np.arange(size, dtype=np.float64)
    if grid == "align_corners":
        return x * (old - 1) / (size - 1) if size > 1 else np.zeros(1)
    if grid == "asymmetric":
        return x / scale
    if grid == "pytorch_half_pixel" and size == 1:
        return np.zeros(1)
    if grid in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / scale - 0.5
    if grid != "half_pixel_symmetric":
        node.refuse(f"coordinates {grid!r}")
    return old / 2 * (1 - size / (scale * old)) + (x + 0.5) / scale - 0.5


def _resized(node: Node) -> tuple[int, int]:
    """(height, width) after a Resize, from its sizes or its scales."""
    axes = [a % 4 for a in node.attr("axes", [0, 1, 2, 3])]
    sizes, scales = node.integers("sizes", 3), node.constant(2)
    shape = list(node.shape())
    if sizes:
        for axis, n in zip(axes, sizes, strict=True):
            shape[axis] = n
    elif scales is not None and scales.size:
        for axis, s in zip(axes, scales, strict=True):
            shape[axis] = math.floor(shape[axis] * float(s) + 1e-6)
    else:
        node.refuse("its size is computed, not constant")
    if tuple(shape[:2]) != tuple(node.shape()[:2]):
        node.refuse("it resizes batch or channels")
    return shape[2], shape[3]
