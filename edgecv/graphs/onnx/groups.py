"""What makes each tensor of an ONNX graph, as far as its channels go (`edgecv.graphs.groups`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecv.graphs import groups
from edgecv.graphs.groups import Groups, Shape, Step
from edgecv.graphs.onnx.bounded import BOUNDS
from edgecv.graphs.onnx.index import Index

_ALIKE = (
    "Dropout", "Relu", "LeakyRelu", "Clip", "Neg", "Exp", "Log", "Sqrt", "Abs", "Softplus",
    *BOUNDS,
)  # fmt: skip
_MOVES = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear")
_WITH_CONSTANT = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")
_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_SHARES = ("Softmax", "LogSoftmax")  # of one distribution, but for an axis beside it


def found(model: Any) -> list[Groups | None]:
    """The groups of each output, in order; None of one that has none. model: onnx.ModelProto"""
    outputs = [output.name for output in model.graph.output]
    if not any(n.op_type == "Concat" for n in model.graph.node):
        return [None for _ in outputs]
    import onnx

    made = onnx.shape_inference.infer_shapes(model)
    known = (*made.graph.value_info, *made.graph.output, *made.graph.input)
    shapes = {v.name: sizes for v in known if (sizes := _static(v))}
    index = Index(made.graph)
    steps = {name: _step(index, node, name, shapes) for name, node in index.makers.items()}
    return groups.found(outputs, steps, shapes)


def _step(index: Index, node: Any, name: str, shapes: Mapping[str, Shape]) -> Step:
    kind, inputs, first = node.op_type, tuple(node.input), tuple(node.input[:1])
    rank = len(shapes.get(name, ()))
    if not rank or name != node.output[0] or node.domain not in ("", "ai.onnx"):
        return Step("other")
    if kind == "Concat":
        return Step("join", inputs, _axis(node, rank))
    if kind in _SHARES:
        return Step("share", first, _axis(node, rank))
    if kind == "Transpose":
        given = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
        return Step("turn", first, order=given or tuple(reversed(range(rank))))
    if kind in _SHAPES:
        return Step("shape", first)
    if kind in _MOVES:
        return Step("move", first)
    if kind in _ALIKE:
        return Step("each", first, bound=BOUNDS.get(kind))
    if kind in _WITH_CONSTANT:
        read = tuple(n for n in inputs if n not in index.held and not _fixed(index, n))
        if len(read) == 1 and shapes.get(read[0]) == shapes.get(name):
            return Step("each", read)
    return Step("other")


def _fixed(index: Index, name: str) -> bool:
    node = index.makers.get(name)
    return node is not None and node.op_type == "Constant"


def _axis(node: Any, rank: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), -1) % rank


def _static(value: Any) -> Shape:
    dims = value.type.tensor_type.shape.dim
    sizes = tuple(int(d.dim_value) for d in dims)
    return sizes if all(size > 0 for size in sizes) else ()
