"""What stays float with an operator that has no int8 kernel, or none worth having: exp(x) - 1,
log(1 + exp(x)), x / sqrt(mean(x^2) + eps), ...

Such operators come of functions that a converter wrote out: softplus, mish, GELU, a softmax or a
normalisation. What lies between them spans orders of magnitude: 256 levels of e^7 leave nothing of
e^-1, and those of a variance nothing of a small one's root. So what computes element by element
with their results stays float too, and what a root, a logarithm or a quotient is computed from, up
to the next product, pooling or joint, where one range holds it all. ONNX Runtime and OpenVINO have
normalisations in float only as well.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.tflite import flatbuffer

ELEMENTWISE = frozenset((
    "ABS", "ADD", "COS", "DIV", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC",
    "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG", "POW", "PRELU", "REDUCE_MAX", "REDUCE_MIN", "RELU",
    "RELU6", "RESHAPE", "RSQRT", "SELECT", "SELECT_V2", "SIGN", "SIN", "SQRT", "SQUARE",
    "SQUARED_DIFFERENCE", "SUB", "SUM", "TANH",
))  # fmt: skip
WIDE = frozenset(("RSQRT", "SQRT", "LOG", "POW"))
# What such an argument is made with.
_BEFORE = frozenset((
    "ABS", "ADD", "MAXIMUM", "MEAN", "MUL", "NEG", "RESHAPE", "SQUARE", "SQUARED_DIFFERENCE", "SUB",
    "SUM",
))  # fmt: skip


def wide(model: Any) -> set[str]:
    """Roots, logarithms and quotients of what flows, with what their arguments are made of.

    model: the float one. By the operators' first output tensors
    """
    graph, found, read = flatbuffer.graph_of(model), set[str](), set[int]()
    for op in reversed(graph.operators):
        kind, inputs = flatbuffer.op_name(model, op), [int(t) for t in op.inputs]
        flow = [t for t in inputs if flatbuffer.constant(model, graph.tensors[t]) is None]
        quotient = kind == "DIV" and inputs[1] in flow
        if kind in WIDE or quotient or (kind in _BEFORE and read & {int(t) for t in op.outputs}):
            found.add(_name(graph, op))
            read |= {inputs[1]} if quotient else set(flow)
    return found


def said(model: Any, names: set[str]) -> list[str]:
    """A sentence on what `wide` found."""
    graph = flatbuffer.graph_of(model)
    ops = [op for op in graph.operators if _name(graph, op) in names]
    kinds = {flatbuffer.op_name(model, op) for op in ops} & {*WIDE, "DIV"}
    if not kinds:
        return []
    return [
        f"{', '.join(sorted(kinds))}: computed in float with what is around, as a normalisation"
    ]


def with_them(model: Any, left: set[str]) -> set[str]:
    """Operators that stay float with those, by their first output tensor.

    model: the float one. left: the operators that stay float in any case
    """
    graph = flatbuffer.graph_of(model)
    floats = {int(op.outputs[0]) for op in graph.operators if _name(graph, op) in left}
    found = set()
    for op in graph.operators:
        reads = floats & {int(t) for t in op.inputs}
        if reads and flatbuffer.op_name(model, op) in ELEMENTWISE and _name(graph, op) not in left:
            floats |= {int(t) for t in op.outputs}
            found.add(_name(graph, op))
    return found


def _name(graph: Any, op: Any) -> str:
    return str(graph.tensors[op.outputs[0]].name.decode())
