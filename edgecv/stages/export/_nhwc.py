"""Rewrites that keep a network channels-last: what would force a TRANSPOSE is said otherwise.

    mean(x, H and W)            = adaptive_avg_pool2d(x, 1)            (MEAN over NHWC axes)
    amax(x, H and W)            = max_pool2d(x, (H, W))
    max_pool2d(relu(x), pad p)  = max_pool2d(pad(relu(x), p))          (0 for -inf: int8 has none)
    linear(flatten(x, 1), W, b) = flatten(conv2d(x, W[o, C, H, W], b)) (a kernel as large as x)

All are exact in real arithmetic. An ATen graph (`ExportedProgram.module()`) comes in and is
edited in place.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import ShapeProp

_aten = torch.ops.aten
_FLATTEN = (_aten.flatten.using_ints, _aten.view.default, _aten.reshape.default)
_POSITIVE = (_aten.relu.default, _aten.relu_.default, _aten.relu6.default, _aten.sigmoid.default)
# What may stand between a flatten and its linear without reading the order of the features.
_ELEMENTWISE = (_aten.dropout.default, _aten.relu.default, _aten.clone.default)


# Operators whose result depends on where the channels are, or whose lowering forgets it.
_ORDERED: tuple[str, ...]
_ORDERED = ("flatten", "view", "reshape", "permute", "transpose", "mean", "sum", "amax", "softmax")
_ORDERED += ("channel_shuffle", "pixel_shuffle", "group_norm", "layer_norm", "elu")


def keep_channels_last(program: GraphModule, example: torch.Tensor) -> None:
    """Rewrite every spatial mean or maximum and every dense layer over a flattened image.

    example: (1, C, H, W), run once to learn the shapes.
    """
    ShapeProp(program).propagate(example)
    for node in list(program.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (_aten.mean.dim, _aten.amax.default):
            _pool(program, node)
        elif node.target is _aten.max_pool2d.default:
            _pad(program, node)
        elif node.target is _aten.linear.default:
            _convolve(program, node)
    program.graph.eliminate_dead_code()
    program.recompile()


def suspects(program: GraphModule) -> list[str]:
    """The lines that read a channels-first order: what to name when a TRANSPOSE is left."""
    found = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not node.all_input_nodes:
            continue
        name, shape = str(node.target).split(".")[1], _shape(node.all_input_nodes[0])
        if len(shape) == 4 and not _unordered(shape) and name in _ORDERED:
            found.append(f"{name} of a {shape} tensor{_line(node)}")
        elif len(shape) == 2 and len(_shape(node)) == 4:  # features put back as an image
            found.append(f"{name} to a {_shape(node)} tensor{_line(node)}")
    return found


def _pool(program: GraphModule, node: Node) -> None:
    """mean, amax(x, [2, 3]) -> a pool over the whole image, flattened unless keepdim."""
    x, dims = node.args[0], node.args[1] if len(node.args) > 1 else None
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    if not isinstance(x, Node) or not isinstance(dims, (list, tuple)) or len(_shape(x)) != 4:
        return
    if {int(d) % 4 for d in dims} != {2, 3}:
        return
    with program.graph.inserting_before(node):
        if node.target is _aten.mean.dim:
            new = _call(program, _aten.adaptive_avg_pool2d.default, (x, [1, 1]), node)
        else:
            new = _call(program, _aten.max_pool2d.default, (x, list(_shape(x)[2:])), node)
        if not keep:
            new = _call(program, _aten.flatten.using_ints, (new, 1), node)
    _replace(node, new)


def _pad(program: GraphModule, node: Node) -> None:
    """max_pool2d(relu(x), k, s, p) -> max_pool2d(pad(relu(x), p, 0), k, s, 0)."""
    x, padding = node.args[0], node.args[3] if len(node.args) > 3 else 0
    both = list(padding) * 2 if isinstance(padding, (list, tuple)) else [padding] * 2
    if not isinstance(x, Node) or x.target not in _POSITIVE or not any(both):
        return
    height, width = both[:2]
    with program.graph.inserting_before(node):
        padded = _call(program, _aten.pad.default, (x, [width, width, height, height]), node)
        args = (padded, *node.args[1:3], [0, 0], *node.args[4:])
        new = _call(program, node.target, args, node)
    _replace(node, new)


def _convolve(program: GraphModule, node: Node) -> None:
    """linear(flatten(x, 1), W, b) -> flatten(conv2d(x, W as [out, C, H, W], b), 1)."""
    chain, x = [], node.args[0]
    while isinstance(x, Node) and x.target in _ELEMENTWISE:
        chain.append(x)
        x = x.args[0]
    if not isinstance(x, Node) or x.target not in _FLATTEN or not isinstance(x.args[0], Node):
        return
    image = x.args[0]
    shape, flat = _shape(image), _shape(x)
    if len(shape) != 4 or flat != (shape[0], prod(shape[1:])) or _unordered(shape):
        return
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight, Node)
    with program.graph.inserting_before(node):
        for step in reversed(chain):
            image = _call(program, step.target, (image, *step.args[1:]), step)
        size = [_shape(weight)[0], *shape[1:]]
        kernel = _call(program, _aten.reshape.default, (weight, size), node)
        new = _call(program, _aten.conv2d.default, (image, kernel, bias), node)
        new = _call(program, _aten.flatten.using_ints, (new, 1), node)
    _replace(node, new)


def _replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)  # the same value, from the same line
    node.replace_all_uses_with(new)


def _call(program: GraphModule, target: Any, args: tuple[Any, ...], like: Node) -> Node:
    """A new node that keeps the source line of the one it stands for."""
    node = program.graph.call_function(target, args)
    node.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
    return node


def _shape(node: Node) -> tuple[int, ...]:
    """Of the value that ShapeProp saw; () for a node made since, or no tensor."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _unordered(shape: tuple[int, ...]) -> bool:
    """True where channels-first and channels-last are the same order: 1x1 images, one channel."""
    return shape[1] == 1 or shape[2] * shape[3] == 1


def _line(node: Node) -> str:
    """The user's own source line, from the trace that torch.export keeps."""
    trace = [t.strip() for t in str(node.meta.get("stack_trace") or "").splitlines() if t.strip()]
    return f" in `{trace[-1]}`" if trace else ""
