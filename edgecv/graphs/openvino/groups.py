"""What makes each tensor of an ov.Model, as far as its channels go (`edgecv.graphs.groups`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecv.graphs import groups
from edgecv.graphs.groups import Groups, Shape, Step
from edgecv.graphs.openvino.constants import value
from edgecv.graphs.openvino.nodes import kind, source, sources

# Operator -> the largest magnitude that it gives; softmax is not among them, as in ONNX.
BOUNDS = {"Sigmoid": 1.0, "Tanh": 1.0, "HSigmoid": 1.0, "HardSigmoid": 1.0}
_ALIKE = ("Relu", "PRelu", "Clamp", "Negative", "Exp", "Log", "Sqrt", "Abs", "SoftPlus", *BOUNDS)
_MOVES = ("Convert", "FakeQuantize")
_WITH_CONSTANT = ("Add", "Subtract", "Multiply", "Divide", "Power", "Minimum", "Maximum")
_SHAPES = ("Reshape", "Squeeze", "Unsqueeze")
_SHARES = ("Softmax", "SoftMax", "LogSoftmax")  # of one distribution, but for an axis beside it


def found(model: Any) -> list[Groups | None]:
    """The groups of each output, in order; None of one that has none. model: ov.Model"""
    made = {_key(out): (n, out) for n in model.get_ordered_ops() for out in n.outputs()}
    shapes = {key: size for key, (_, out) in made.items() if (size := _static(out))}
    steps = {key: _step(node, key, shapes) for key, (node, _) in made.items()}
    outputs = [_key(output.get_node().input_value(0)) for output in model.outputs]
    return groups.found(outputs, steps, shapes)


def _step(node: Any, key: str, shapes: Mapping[str, Shape]) -> Step:
    own, rank = kind(node), len(shapes.get(key, ()))
    reads = [_key(v) for v in node.input_values()]
    first = tuple(reads[:1])
    if not rank or not reads:
        return Step("other")
    if own == "Concat":
        return Step("join", tuple(reads), int(node.get_attributes()["axis"]) % rank)
    if own in _SHARES:
        return Step("share", first, int(node.get_attributes()["axis"]) % rank)
    if own == "Transpose":
        order = value(source(node, 1))[0]
        if order is not None and order.size:
            return Step("turn", first, order=tuple(map(int, order)))
    if own in _SHAPES:
        return Step("shape", first)
    if own in _MOVES:
        return Step("move", first)
    if own in _ALIKE:
        return Step("each", first, bound=BOUNDS.get(own))
    if own in _WITH_CONSTANT:
        pairs = zip(reads, sources(node), strict=True)
        computed = tuple(name for name, n in pairs if value(n)[0] is None)
        if len(computed) == 1 and shapes.get(computed[0]) == shapes[key]:
            return Step("each", computed)
    return Step("other")


def _key(value: Any) -> str:
    return f"{value.get_node().get_name()}:{value.get_index()}"


def _static(value: Any) -> Shape:
    if value.get_partial_shape().is_dynamic:
        return ()
    sizes = tuple(int(n) for n in value.get_shape())
    return sizes if all(size > 0 for size in sizes) else ()
