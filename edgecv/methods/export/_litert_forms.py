"""Rewrites of what LiteRT cannot convert, converts wrongly, or what int8 cannot hold.

    conv_transpose(x, W, pads, groups, dilation) = crop(conv_transpose(x, W spread out))  per group
    avg_pool(x, pads that do not count)          = avg_pool(pad(x, 0)) * k / count
    max_pool(x, pads)                            = max_pool(x with its edges repeated)
    adaptive_max_pool(x)                         = max_pool(x), part by part
    nearest pixels by a given factor             = pixels picked by their places
    elu(x), selu(x), celu(x)                     = relu(x) + a (exp(min(x, 0)) - 1)
    group_norm(x)                                = (x - m) / sqrt(v + eps) * w + b
    c - x                                        = -x + c
    c / x                                        = c sign(x) / |x|     (behind a convolution)

LiteRT lowers a transposed convolution only without padding, and fills `output_padding` with
zeros; a mean that leaves padding out becomes a composite, which other interpreters do not run.
Behind a convolution it folds c - x as if it were x - c, and c / x as x / c.
Max pooling's own padding is minus infinity, and no int8 grid holds that; the repeated edge is in
every window that reads it. All are exact in real arithmetic. An ATen graph
(`ExportedProgram.module()`) is edited in place.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgecv.models.importing.windows import beyond, counted

_aten = torch.ops.aten
_POSITIVE = (_aten.relu.default, _aten.relu_.default, _aten.relu6.default, _aten.sigmoid.default)
_CELUS = (_aten.celu.default, _aten.celu_.default)
_SELUS = (_aten.selu.default, _aten.selu_.default)
_ELUS = (_aten.elu.default, _aten.elu_.default, *_SELUS, *_CELUS)
_PADS = (_aten.pad.default, _aten.constant_pad_nd.default)
_TRANSPOSED = (_aten.conv_transpose2d.input, _aten.conv_transpose1d.default)
_MOVED: tuple[str, ...]
_MOVED = ("add", "sub", "rsub", "mul", "div", "neg", "view", "reshape", "permute", "transpose")
_MOVED += ("flatten", "unsqueeze", "squeeze", "batch_norm", "dropout", "clone", "contiguous", "pad")
_PRODUCTS = (
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "linear",
    "matmul",
    "addmm",
)


def rewrite(program: GraphModule) -> None:
    """Apply them all; nodes know their shapes (`torch.fx.passes.shape_prop`)."""
    for node in program.graph.nodes:
        inputs = [_flows(n) for n in node.all_input_nodes]
        node.meta["flows"] = any(inputs) or node.op == "placeholder"
    for node in list(program.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is _aten.adaptive_max_pool2d.default:
            _largest_of_parts(program, node)
            continue
        new = None
        with program.graph.inserting_before(node):
            if node.target in _TRANSPOSED:
                new = _transposed(program, node)
            elif node.target is _aten.avg_pool2d.default:
                new = _mean_of_windows(program, node)
            elif node.target is _aten.max_pool2d.default:
                new = _largest_of_windows(program, node)
            elif node.target is _aten.upsample_nearest2d.vec:
                new = _picked(program, node)
            elif node.target in _ELUS:
                new = _elu(program, node)
            elif node.target in (_aten.group_norm.default, _aten.instance_norm.default):
                new = _normalised(program, node)
            elif node.target in (_aten.sub.Tensor, _aten.rsub.Scalar, _aten.rsub.Tensor):
                new = _taken_from(program, node)
            elif node.target in (_aten.div.Tensor, _aten.reciprocal.default):
                new = _divided(program, node)
        if new is not None:
            replace(node, new)


# --- transposed convolutions ---------------------------------------------------------------


def _transposed(program: GraphModule, node: Node) -> Node | None:
    x, held, bias, stride, padding, extra, groups, dilation = _arguments(node)
    weight, offset = value(program, held), value(program, bias)
    axes = weight.ndim - 2 if weight is not None else 0
    if weight is None or (bias is not None and offset is None):
        return None  # computed weights: LiteRT says what it thinks of them
    stride, padding, extra, dilation = (_each(v, axes) for v in (stride, padding, extra, dilation))
    if groups == 1 and not any(padding) and not any(extra) and dilation == [1] * axes:
        return None
    weight = _spread(weight, stride, padding, extra, dilation)
    parts = []
    for g in range(groups):
        part = x
        if groups > 1:
            size = len(weight) // groups
            part = call(program, _aten.slice.Tensor, (x, 1, g * size, (g + 1) * size), node)
        own = weight.chunk(groups)[g].contiguous()
        its = None if offset is None else constant(program, offset.chunk(groups)[g].clone())
        args = (part, constant(program, own), its, stride, [0] * axes)
        parts.append(call(program, node.target, args, node))
    y = parts[0] if groups == 1 else call(program, _aten.cat.default, (parts, 1), node)
    full = [(n - 1) * s + k for n, s, k in zip(shape(x)[2:], stride, weight.shape[2:], strict=True)]
    for axis, (p, out, n) in enumerate(zip(padding, shape(node)[2:], full, strict=True)):
        if (p, out) != (0, n):
            y = call(program, _aten.slice.Tensor, (y, 2 + axis, p, p + out), node)
    return y


def _spread(
    weight: torch.Tensor, stride: list[int], padding: list[int], extra: list[int], apart: list[int]
) -> torch.Tensor:
    """(I, O, *k) with dilation - 1 zeros between its taps, and so many zeros behind them that what
    is cropped is there: output_padding beyond the padding, a stride beyond the kernel."""
    for axis, (s, p, e, d) in enumerate(zip(stride, padding, extra, apart, strict=True), 2):
        k = (weight.shape[axis] - 1) * d + 1
        longer = list(weight.shape)
        longer[axis] = k + max(0, e - p, s - k)
        spread = weight.new_zeros(longer)
        at = [slice(None)] * weight.ndim
        at[axis] = slice(0, k, d)
        spread[tuple(at)] = weight
        weight = spread
    return weight


# --- pooling -------------------------------------------------------------------------------


def _window(node: Node) -> tuple[Any, ...]:
    """(x, kernel, stride, the rest of the arguments)."""
    x, kernel, stride, *rest = _arguments(node)
    kernel = _each(kernel, 2)
    return x, kernel, _each(stride, 2) if stride else kernel, rest


def _mean_of_windows(program: GraphModule, node: Node) -> Node | None:
    x, kernel, stride, (padding, ceil, include, divisor) = _window(node)
    padding, sizes = _each(padding, 2), shape(x)[-2:]
    axes = list(zip(sizes, kernel, stride, padding, strict=True))
    over = [beyond(n, k, s, 1, p, p) if ceil else 0 for n, k, s, p in axes]
    if divisor is None and not any(over) and (include or not any(padding)):
        return None
    counts = [
        counted(n, k, s, (p, p), o, include) for (n, k, s, p), o in zip(axes, over, strict=True)
    ]
    sides = [(p, p + o) for p, o in zip(padding, over, strict=True)]
    pooled = call(program, node.target, (_filled(program, x, sides, node), kernel, stride), node)
    share = math.prod(kernel) / (np.outer(*counts) if divisor is None else np.full((1, 1), divisor))
    if (share == 1).all():
        return pooled
    held = constant(program, torch.from_numpy(share.astype("f4")[None, None]))
    return call(program, _aten.mul.Tensor, (pooled, held), node)


def _largest_of_windows(program: GraphModule, node: Node) -> Node | None:
    """Padding by zeros behind a ReLU, by the repeated edge elsewhere; TFLite's SAME stays."""
    x, kernel, stride, (padding, dilation, ceil) = _window(node)
    padding, dilation = _each(padding, 2), _each(dilation, 2)
    sides = [(p, p) for p in padding]
    if x.target in _PADS and not any(padding) and _infinite(x) and len(x.args[1]) == 4:
        left, right, top, bottom = x.args[1]  # uneven padding, written out before it
        sides, x = [(top, bottom), (left, right)], x.args[0]
    axes = list(zip(shape(x)[-2:], kernel, stride, dilation, sides, strict=True))
    over = [beyond(n, k, s, d, *pads) if ceil else 0 for n, k, s, d, pads in axes]
    sides = [(before, after + o) for (before, after), o in zip(sides, over, strict=True)]
    if not any(n for pair in sides for n in pair):
        return None
    if x.target in _POSITIVE:
        padded = _filled(program, x, sides, node)
    elif dilation == [1, 1] and all(max(p) < k for p, k in zip(sides, kernel, strict=True)):
        if not any(over) and all(_same(n, k, s, p) for n, k, s, _, p in axes):
            return None
        padded = _repeated(program, x, sides, node)
    else:
        return None
    return call(program, node.target, (padded, kernel, stride, [0, 0], dilation), node)


def _largest_of_parts(program: GraphModule, node: Node) -> None:
    """adaptive_max_pool2d as windows of one size, or part by part where they differ: LiteRT has no
    lowering of it. Its indices cannot be had."""
    (x, wanted), users = _arguments(node), [u for u in node.users if u.users]
    if not isinstance(x, Node) or any(u.target is not getitem or u.args[1] != 0 for u in users):
        return
    with program.graph.inserting_before(node):
        y: Node = x
        for axis, (n, parts) in enumerate(zip(shape(x)[-2:], _each(wanted, 2), strict=True)):
            window = [n // parts if axis == side else 1 for side in (0, 1)]
            if n % parts == 0:
                y = call(program, _aten.max_pool2d.default, (y, window, window), node)
                continue
            found = []
            for i in range(parts):
                first, last = i * n // parts, -(-(i + 1) * n // parts)
                part = call(program, _aten.slice.Tensor, (y, axis + 2, first, last), node)
                whole = [last - first if axis == side else 1 for side in (0, 1)]
                found.append(call(program, _aten.max_pool2d.default, (part, whole, whole), node))
            y = call(program, _aten.cat.default, (found, axis + 2), node)
    for user in users:
        replace(user, y)


def _picked(program: GraphModule, node: Node) -> Node | None:
    """Nearest pixels where PyTorch chooses others than floor(i * in / out), which LiteRT does."""
    x, *rest = _arguments(node)
    height, width = shape(x)[2:]
    places = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    seen = node.target(places, *rest)[0, 0].long()  # type: ignore[operator]
    axes = ((2, height, seen[:, 0] // width), (3, width, seen[0] % width))
    if all(torch.equal(_floored(size, len(at)), at) for _, size, at in axes):
        return None
    for axis, size, at in axes:
        if not torch.equal(torch.arange(size), at):
            args = (x, axis, constant(program, at))
            x = call(program, _aten.index_select.default, args, node)
    return x


def _floored(size: int, new: int) -> torch.Tensor:
    """The pixels that LiteRT picks, in float32 as it computes."""
    return torch.arange(new).mul(float(np.float32(size / new))).floor().long()


def _infinite(pad: Node) -> bool:
    fills = [a for a in (*pad.args[2:], *pad.kwargs.values()) if isinstance(a, (int, float))]
    return any(fill == -math.inf for fill in fills)


def _same(n: int, k: int, s: int, pads: tuple[int, int]) -> bool:
    """Whether TensorFlow's SAME pads so much: it leaves what is not there out of a window."""
    total = max(0, (-(-n // s) - 1) * s + k - n)
    return pads == (total // 2, total - total // 2)


def _filled(program: GraphModule, x: Node, sides: list[tuple[int, int]], like: Node) -> Node:
    (top, bottom), (left, right) = sides
    if not any((top, bottom, left, right)):
        return x
    return call(program, _aten.pad.default, (x, [left, right, top, bottom]), like)


def _repeated(program: GraphModule, x: Node, sides: list[tuple[int, int]], like: Node) -> Node:
    """x with its first and last rows and columns repeated."""
    sizes = shape(x)[-2:]
    for axis, (n, (before, after)) in enumerate(zip(sizes, sides, strict=True), 2):
        first = call(program, _aten.slice.Tensor, (x, axis, 0, 1), like) if before else None
        last = call(program, _aten.slice.Tensor, (x, axis, n - 1, n), like) if after else None
        parts = [first] * before + [x] + [last] * after
        if len(parts) > 1:
            x = call(program, _aten.cat.default, (parts, axis), like)
    return x


# --- activations and norms -----------------------------------------------------------------


def _elu(program: GraphModule, node: Node) -> Node:
    x, *rest = _arguments(node)
    if node.target in _CELUS:
        rest = [rest[0], 1.0, 1.0 / rest[0]]
    alpha, scale, inner = rest or (1.6732632423543772, 1.0507009873554805, 1.0)
    below = call(program, _aten.clamp.default, (x, None, 0.0), node)
    if inner != 1:
        below = call(program, _aten.mul.Tensor, (below, inner), node)
    below = call(program, _aten.exp.default, (below,), node)
    below = call(program, _aten.sub.Tensor, (below, 1.0), node)
    if alpha != 1:
        below = call(program, _aten.mul.Tensor, (below, alpha), node)
    above = call(program, _aten.relu.default, (x,), node)
    y = call(program, _aten.add.Tensor, (above, below), node)
    return y if scale == 1 else call(program, _aten.mul.Tensor, (y, scale), node)


def _taken_from(program: GraphModule, node: Node) -> Node | None:
    """A constant minus what flows."""
    left, right, alpha = _arguments(node)
    if node.target is not _aten.sub.Tensor:
        left, right = right, left
    if alpha != 1 or not _flows(right) or _flows(left):
        return None
    negative = call(program, _aten.neg.default, (right,), node)
    return call(program, _aten.add.Tensor, (negative, left), node)


def _divided(program: GraphModule, node: Node) -> Node | None:
    """A constant over what a convolution made."""
    left, right = node.args if node.target is _aten.div.Tensor else (1.0, node.args[0])
    if _flows(left) or not isinstance(right, Node) or not _flows(right) or not _folds(right):
        return None
    sign = call(program, _aten.sign.default, (right,), node)
    above = call(program, _aten.mul.Tensor, (sign, left), node)
    below = call(program, _aten.abs.default, (right,), node)
    return call(program, _aten.div.Tensor, (above, below), node)


def _flows(of: Any) -> bool:
    """Whether it depends on the network's input."""
    return isinstance(of, Node) and bool(of.meta.get("flows", True))


def _folds(node: Node) -> bool:
    """Whether it is a layer's product, or one moved and scaled by constants."""
    while _name(node) in _MOVED:
        flowing = [n for n in node.all_input_nodes if _flows(n)]
        if len(flowing) != 1:
            return False
        node = flowing[0]
    return _name(node) in _PRODUCTS


def _name(node: Node) -> str:
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""


def _normalised(program: GraphModule, node: Node) -> Node | None:
    """Each group of channels by its own mean and variance, as means over the image and, of several
    channels, a 1x1 convolution that averages over each group."""
    x = node.args[0]
    if not isinstance(x, Node) or len(shape(x)) != 4:
        return None
    channels = shape(x)[1]
    if node.target is _aten.group_norm.default:
        _, groups, weight, bias, eps, _ = _arguments(node)
    else:
        _, weight, bias, mean, _, stats, _, eps, _ = _arguments(node)
        groups = channels
        if not stats and mean is not None:
            return None
    centred = call(program, _aten.sub.Tensor, (x, _average(program, x, groups, node)), node)
    squares = call(program, _aten.mul.Tensor, (centred, centred), node)
    spread = _average(program, squares, groups, node, channels)
    spread = call(program, _aten.add.Tensor, (spread, eps), node)
    scale = call(program, _aten.rsqrt.default, (spread,), node)
    if weight is not None:
        wide = call(program, _aten.reshape.default, (weight, [1, channels, 1, 1]), node)
        scale = call(program, _aten.mul.Tensor, (scale, wide), node)
    y = call(program, _aten.mul.Tensor, (centred, scale), node)
    if bias is None:
        return y
    wide = call(program, _aten.reshape.default, (bias, [1, channels, 1, 1]), node)
    return call(program, _aten.add.Tensor, (y, wide), node)


def _average(
    program: GraphModule, x: Node, groups: int, like: Node, channels: int | None = None
) -> Node:
    channels = channels or shape(x)[1]
    mean = call(program, _aten.adaptive_avg_pool2d.default, (x, [1, 1]), like)
    if groups == channels:
        return mean
    each = channels // groups
    block = torch.block_diag(*[torch.full((each, each), 1 / each)] * groups)
    return call(
        program, _aten.conv2d.default, (mean, constant(program, block[..., None, None])), like
    )


# --- editing an ATen graph -----------------------------------------------------------------


def call(program: GraphModule, target: Any, args: tuple[Any, ...], like: Node) -> Node:
    """A new node that keeps the source line of the one it stands for."""
    node = program.graph.call_function(target, args)
    node.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
    return node


def replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)  # the same value, from the same line
    node.replace_all_uses_with(new)


def shape(node: Any) -> tuple[int, ...]:
    """Of the value that ShapeProp saw; () for a node made since, or no tensor."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def value(program: GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor that a get_attr node reads, detached; None for what is computed."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    held = reduce(getattr, str(node.target).split("."), program)
    return held.detach() if isinstance(held, torch.Tensor) else None


def constant(program: GraphModule, tensor: torch.Tensor) -> Node:
    """A new constant of the program."""
    number = sum(1 for name, _ in program.named_buffers() if name.startswith("edgecv_"))
    program.register_buffer(f"edgecv_{number}", tensor)
    return program.graph.get_attr(f"edgecv_{number}")


def _arguments(node: Node) -> list[Any]:
    """Every argument of the operator, those left out at their defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = list(node.args)
    return [
        given[i] if i < len(given) else node.kwargs.get(a.name, a.default_value)
        for i, a in enumerate(schema)
    ]


def _each(values: Any, count: int) -> list[int]:
    """One value an axis of a scalar or a list."""
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    return values * count if len(values) == 1 else values
