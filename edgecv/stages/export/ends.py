"""What a graph's outputs hold: scores for classes, scores for every pixel, or values.

A row of two numbers or more is taken for scores, unless it ends in a function that makes quantities
of them (ReLU, softplus, sigmoid, exp, ...) and nothing says what its classes are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecv.backends.tflite import flatbuffer
from edgecv.graph import Graph
from edgecv.runtime.fidelity import kinds

# Functions behind a network's last layer after which its numbers are quantities. TFLite's names.
ONNX_VALUES = {
    "Relu", "Clip", "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Tanh", "Abs", "Sqrt", "Pow",
}  # fmt: skip
TFLITE_VALUES = {"RELU", "RELU6", "LOGISTIC", "EXP", "TANH", "ABS", "SQRT", "POW", "LOG", "SQUARE"}
ONNX_PASSING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"}
TFLITE_PASSING = {"RESHAPE", "SQUEEZE", "TRANSPOSE", "EXPAND_DIMS"}


def with_kinds(graph: Graph, labels: Sequence[str] | None) -> Graph:
    """The graph with the kind of each output. labels: the first output's classes, if known."""
    ends = _onnx_ends(graph) if graph.format == "onnx" else _tflite_ends(graph)
    values = ONNX_VALUES if graph.format == "onnx" else TFLITE_VALUES
    found = []
    for place, spec in enumerate(graph.outputs):
        kind = kinds([spec])[spec.name]
        if kind != "map" and not (labels and place == 0) and ends[place] in values:
            kind = "values"
        found.append(replace(spec, kind=kind))
    return replace(graph, outputs=tuple(found))


def _onnx_ends(graph: Graph) -> list[str]:
    import onnx

    model = onnx.load_model(str(graph.path), load_external_data=False)
    made = {name: node for node in model.graph.node for name in node.output}
    found = []
    for output in model.graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in ONNX_PASSING:
            node = made.get(node.input[0])
        found.append(node.op_type if node is not None else "")
    return found


def _tflite_ends(graph: Graph) -> list[str]:
    model = flatbuffer.read(graph.path)
    main = flatbuffer.graph_of(model)
    made = {int(t): op for op in main.operators for t in op.outputs}
    found = []
    for index in main.outputs:
        op = made.get(int(index))
        while op is not None and flatbuffer.op_name(model, op) in TFLITE_PASSING:
            op = made.get(int(op.inputs[0]))
        found.append(flatbuffer.op_name(model, op) if op is not None else "")
    return found
