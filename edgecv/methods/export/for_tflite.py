"""The road to a .tflite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.context import Context
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index

# Functions behind a network's last layer after which its numbers are quantities.
VALUES = {"RELU", "RELU6", "LOGISTIC", "EXP", "TANH", "ABS", "SQRT", "POW", "LOG", "SQUARE"}
PASSING = {"RESHAPE", "SQUEEZE", "TRANSPOSE", "EXPAND_DIMS"}


def export(module: Any, example: Any, context: Context, opset: int, where: str) -> Graph:
    """The graph of a torch network, in context.out."""
    from edgecv.methods.export.tflite import export_tflite  # torch, which a file does without

    del opset, where  # of ONNX files; LiteRT says `context.network` in what goes wrong
    return export_tflite(module, example, context.out, context.network)


def load(path: Path, out: Path) -> Graph:
    """The graph of a user's .tflite file, whose clean copy lies at path, in out/."""
    return Graph.load(path.parent).copied(out, "model")


def ends(graph: Graph) -> list[str]:
    """The operator that makes each output, behind those that only pass numbers on."""
    model = flatbuffer.read(graph.path)
    main = flatbuffer.graph_of(model)
    made = Index(main).makers
    found = []
    for index in main.outputs:
        op = made.get(int(index))
        while op is not None and flatbuffer.op_name(model, op) in PASSING:
            op = made.get(int(op.inputs[0]))
        found.append(flatbuffer.op_name(model, op) if op is not None else "")
    return found
