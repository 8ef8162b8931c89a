"""Rewrites that keep a network channels-last: what would force a TRANSPOSE is said otherwise.

    mean(x, H and W)            = adaptive_avg_pool2d(x, 1)            (MEAN over NHWC axes)
    amax(x, H and W)            = max_pool2d(x, (H, W))
    linear(flatten(x, 1), W, b) = flatten(conv2d(x, W[o, C, H, W], b)) (a kernel as large as x)

All are exact in real arithmetic. An ATen graph (`ExportedProgram.module()`) comes in and is
edited in place.
"""

from __future__ import annotations

import re
from math import prod

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import ShapeProp

from edgecv.methods.export._litert_forms import call, replace, rewrite, shape

_aten = torch.ops.aten
_FLATTEN = (_aten.flatten.using_ints, _aten.view.default, _aten.reshape.default)
# What may stand between a flatten and its linear without reading the order of the features.
_ELEMENTWISE = (_aten.dropout.default, _aten.relu.default, _aten.clone.default)


# Operators whose result depends on where the channels are, or whose lowering forgets it.
_ORDERED: tuple[str, ...]
_ORDERED = ("flatten", "view", "reshape", "permute", "transpose", "mean", "sum", "amax", "softmax")
_ORDERED += ("channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "layer_norm", "index_select")
_ORDERED += ("replication_pad2d", "roll", "upsample_bicubic2d", "threshold", "prod", "argmax")


_LINE = 72  # of a user's source line, so much is shown


def keep_channels_last(program: GraphModule, *examples: torch.Tensor) -> None:
    """Rewrite every spatial mean or maximum and every dense layer over a flattened image.

    examples: a tensor for each input, run once to learn the shapes.
    """
    ShapeProp(program).propagate(*examples)
    rewrite(program)
    for node in list(program.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (_aten.mean.dim, _aten.amax.default):
            _pool(program, node)
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
        name, size = _name(node), shape(node.all_input_nodes[0])
        if len(size) == 4 and not _unordered(size) and name in _ORDERED:
            found.append(f"{name} of a {size} tensor{_line(node)}")
        elif len(size) == 2 and len(shape(node)) == 4:  # features put back as an image
            found.append(f"{name} to a {shape(node)} tensor{_line(node)}")
    return found


def culprit(program: GraphModule, message: str) -> str:
    """Which operator of the network a converter's message is about, with its line; "" if none."""
    said = re.findall(r"torch\.ops\.aten\.(\w+)", message) + re.findall(r"\baten\W+(\w+)", message)
    for name in dict.fromkeys(said):
        for node in program.graph.nodes:
            if node.op == "call_function" and _name(node) == name:
                return f"aten.{name}{_line(node)}"
    return ""


def _pool(program: GraphModule, node: Node) -> None:
    """mean, amax(x, [2, 3]) -> a pool over the whole image, flattened unless keepdim."""
    x, dims = node.args[0], node.args[1] if len(node.args) > 1 else None
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    if not isinstance(x, Node) or not isinstance(dims, (list, tuple)) or len(shape(x)) != 4:
        return
    if {int(d) % 4 for d in dims} != {2, 3}:
        return
    with program.graph.inserting_before(node):
        if node.target is _aten.mean.dim:
            new = call(program, _aten.adaptive_avg_pool2d.default, (x, [1, 1]), node)
        else:
            new = call(program, _aten.max_pool2d.default, (x, list(shape(x)[2:])), node)
        if not keep:
            new = call(program, _aten.flatten.using_ints, (new, 1), node)
    replace(node, new)


def _convolve(program: GraphModule, node: Node) -> None:
    """linear(flatten(x, 1), W, b) -> flatten(conv2d(x, W as [out, C, H, W], b), 1)."""
    chain, x = [], node.args[0]
    while isinstance(x, Node) and x.target in _ELEMENTWISE:
        chain.append(x)
        x = x.args[0]
    if not isinstance(x, Node) or x.target not in _FLATTEN or not isinstance(x.args[0], Node):
        return
    image = x.args[0]
    before, flat = shape(image), shape(x)
    if len(before) != 4 or flat != (before[0], prod(before[1:])) or _unordered(before):
        return
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight, Node)
    with program.graph.inserting_before(node):
        for step in reversed(chain):
            image = call(program, step.target, (image, *step.args[1:]), step)
        size = [shape(weight)[0], *before[1:]]
        kernel = call(program, _aten.reshape.default, (weight, size), node)
        new = call(program, _aten.conv2d.default, (image, kernel, bias), node)
        new = call(program, _aten.flatten.using_ints, (new, 1), node)
    replace(node, new)


def _name(node: Node) -> str:
    """ "view" of aten.view.default; a Python function by its own name."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _unordered(size: tuple[int, ...]) -> bool:
    """True where channels-first and channels-last are the same order: 1x1 images, one channel."""
    return size[1] == 1 or size[2] * size[3] == 1


def _line(node: Node) -> str:
    """The user's own source line, from the trace that torch.export keeps."""
    trace = [t.strip() for t in str(node.meta.get("stack_trace") or "").splitlines() if t.strip()]
    line = trace[-1] if trace else ""
    return f" in `{line if len(line) <= _LINE else line[:_LINE] + '...'}`" if line else ""
