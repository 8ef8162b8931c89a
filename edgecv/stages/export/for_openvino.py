"""A user's OpenVINO IR on its way to OpenVINO."""

from __future__ import annotations

from pathlib import Path

from edgecv.graph import Graph

# Functions behind a network's last layer after which its numbers are quantities.
VALUES = {
    "ReLU", "Clamp", "Sigmoid", "HSigmoid", "SoftPlus", "Exp", "Tanh", "Abs", "Sqrt", "Power",
}  # fmt: skip
PASSING = {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert", "FakeQuantize"}


def load(path: Path, out: Path) -> Graph:
    """The graph of a user's IR, whose clean copy lies at path, in out/."""
    return Graph.load(path.parent).copied(out, "model")


def ends(graph: Graph) -> list[str]:
    """The operator that makes each output, behind those that only pass numbers on."""
    import openvino as ov

    found = []
    for output in ov.Core().read_model(*graph.files().values()).outputs:
        node = output.get_node().input_value(0).get_node()
        while node.get_type_name() in PASSING:
            node = node.input_value(0).get_node()
        found.append(str(node.get_type_name()))
    return found
