"""The road to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.context import Context
from edgecv.graph import Graph
from edgecv.graphs.onnx.index import Index
from edgecv.methods.export.onnx import export_onnx, load_onnx

# Functions behind a network's last layer after which its numbers are quantities.
VALUES = {
    "Relu", "Clip", "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Tanh", "Abs", "Sqrt", "Pow",
}  # fmt: skip
PASSING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"}


def export(module: Any, example: Any, context: Context, opset: int, where: str) -> Graph:
    """The graph of a torch network, in context.out."""
    return export_onnx(module, example, context.out, opset, where)


def load(path: Path, out: Path) -> Graph:
    """The graph of a user's .onnx file, in out/."""
    return load_onnx(path, out)


def ends(graph: Graph) -> list[str]:
    """The operator that makes each output, behind those that only pass numbers on."""
    import onnx

    model = onnx.load_model(str(graph.path), load_external_data=False)
    made = Index(model.graph).makers
    found = []
    for output in model.graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in PASSING:
            node = made.get(node.input[0])
        found.append(node.op_type if node is not None else "")
    return found
