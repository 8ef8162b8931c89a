"""What makes each tensor of a .tflite, as far as its channels go (`edgecv.graphs.groups`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.graphs import groups
from edgecv.graphs.groups import Groups, Shape, Step
from edgecv.graphs.tflite import flatbuffer
from edgecv.runtime.spec import TensorSpec

# Operator -> the largest magnitude that it gives; softmax is not among them, as in ONNX.
BOUNDS = {"LOGISTIC": 1.0, "TANH": 1.0}
_ALIKE = (
    "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "NEG", "EXP", "LOG", "SQRT", "ABS", "SQUARE",
    *BOUNDS,
)  # fmt: skip
_MOVES = ("CAST", "QUANTIZE", "DEQUANTIZE")
_WITH_CONSTANT = ("ADD", "SUB", "MUL", "DIV", "POW", "MINIMUM", "MAXIMUM")
_SHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")  # along the last axis


def found(model: Any) -> list[Groups | None]:
    """The groups of each output, in order, along axes as the file has them; None of one that has
    none. model: a ModelT"""
    graph = flatbuffer.graph_of(model)
    outputs = [str(int(t)) for t in graph.outputs]
    kinds = {flatbuffer.op_name(model, op) for op in graph.operators}
    if not kinds & {"CONCATENATION", "PACK"}:
        return [None for _ in outputs]
    sizes = [() if t.shape is None else tuple(map(int, t.shape)) for t in graph.tensors]
    shapes = {str(i): size for i, size in enumerate(sizes) if size and min(size) > 0}
    computed = {int(t) for t in graph.inputs}
    steps: dict[str, Step] = {}
    for op in graph.operators:  # in the order in which they run
        if any(int(t) in computed for t in op.inputs):
            computed |= {int(t) for t in op.outputs}
        for place, result in enumerate(map(int, op.outputs)):
            steps[str(result)] = Step("other") if place else _step(model, op, shapes, computed)
    return groups.found(outputs, steps, shapes)


def told(outputs: Sequence[TensorSpec], model: Any) -> tuple[TensorSpec, ...]:
    """The outputs of a ModelT with the groups that they hold."""
    return groups.told(outputs, found(model))


def _step(model: Any, op: Any, shapes: Mapping[str, Shape], computed: set[int]) -> Step:
    kind, name = flatbuffer.op_name(model, op), str(int(op.outputs[0]))
    inputs = tuple(str(int(t)) for t in op.inputs)
    rank = len(shapes.get(name, ()))
    if not rank:
        return Step("other")
    if kind == "CONCATENATION":
        return Step("join", inputs, int(op.builtinOptions.axis) % rank)
    if kind == "PACK":
        return Step("stack", inputs, int(op.builtinOptions.axis) % rank)
    if kind in _SHARES:
        return Step("share", inputs[:1], rank - 1)
    if kind == "TRANSPOSE":
        order = flatbuffer.constant(model, flatbuffer.graph_of(model).tensors[op.inputs[1]])
        if order is not None:
            return Step("turn", inputs[:1], order=tuple(map(int, order)))
    if kind in _SHAPES:
        return Step("shape", inputs[:1])
    if kind in _MOVES:
        return Step("move", inputs[:1])
    if kind in _ALIKE:
        return Step("each", inputs[:1], bound=BOUNDS.get(kind))
    if kind in _WITH_CONSTANT:
        read = [t for t in inputs if int(t) in computed]
        if len(read) == 1 and shapes.get(read[0]) == shapes.get(name):
            return Step("each", tuple(read))
    return Step("other")
