"""Results that are as long as the image makes them: no engine here takes them, and where to cut.

NonMaxSuppression, NonZero, Unique and Compress find as many as there are; whatever reads them has
no shape until it ran. The decode tail of a detector is of that kind: the graph ends in front of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.draft import body_reads, inferred
from edgecv.graphs.onnx.index import Index

GROWING = ("NonMaxSuppression", "NonZero", "Unique", "Compress")
# What stands between such a node and the tensors that somebody would want instead.
_BETWEEN = (
    "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Slice",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Not",
)  # fmt: skip


def refuse_growing(model: Any, where: str) -> None:
    """Raises UnsupportedError: an output of a static graph whose shape hangs on the image's
    content. It names the node, and the tensors to cut the graph at.

    model: an onnx.ModelProto whose constants are folded
    """
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type in GROWING and n.domain in ("", "ai.onnx")]
    if not nodes:
        return
    shapes = inferred(_unsaid(model))
    for node in nodes:
        reached = _reached(graph, node)
        loose = [o.name for o in graph.output if o.name in reached and o.name not in shapes]
        if not loose:
            continue
        cuts = _options("--until", list(dict.fromkeys(_cuts(graph, node))))
        kept = [o.name for o in graph.output if o.name not in reached]
        hint = f"end the graph in front of it ({cuts})" if cuts else "end the graph in front of it"
        if kept:
            hint += f", or keep what does not hang on it ({_options('--output', kept)})"
        what = f"finds as many as there are: output {loose[0]!r} has another shape for every image"
        name = node.name or node.output[0]
        raise UnsupportedError(f"{where}: node {name!r} ({node.op_type})", what, hint)


def _unsaid(model: Any) -> Any:
    """A copy that says nothing itself of its outputs' shapes."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return copy


def _options(option: str, names: list[str]) -> str:
    return " ".join(f"{option} {name!r}" for name in names)


def _reached(graph: Any, start: Any) -> set[str]:
    """The tensors that are computed of what the node gives."""
    found = {*start.output}
    for node in graph.node:  # in the order they run
        if found & ({*node.input} | body_reads(node)):
            found |= {*node.output}
    return found


def _cuts(graph: Any, node: Any) -> Iterator[str]:
    """What the node reads, before it was compared and moved about."""
    makers = Index(graph).makers
    for name in node.input:
        maker = makers.get(name)
        if maker is None:
            continue
        if maker.op_type in _BETWEEN:
            yield from _cuts(graph, maker)
        elif maker.op_type != "Constant":
            yield name
