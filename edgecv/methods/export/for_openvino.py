"""A user's OpenVINO IR on its way to OpenVINO."""

from __future__ import annotations

from pathlib import Path

from edgecv.graph import Graph
from edgecv.graphs.openvino.files import read
from edgecv.graphs.openvino.nodes import kind, source

# Functions behind a network's last layer after which its numbers are quantities.
VALUES = {
    "Relu", "Clamp", "Sigmoid", "HSigmoid", "SoftPlus", "Exp", "Tanh", "Abs", "Sqrt", "Power",
}  # fmt: skip
PASSING = {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert", "FakeQuantize"}


def load(path: Path, out: Path) -> Graph:
    """The graph of a user's IR, whose clean copy lies at path, in out/."""
    return Graph.load(path.parent).copied(out, "model")


def ends(graph: Graph) -> list[str]:
    """The operator that makes each output, behind those that only pass numbers on."""
    found = []
    for output in read(list(graph.files().values()), graph.path.name).outputs:
        node = source(output.get_node())
        while kind(node) in PASSING:
            node = source(node)
        found.append(kind(node))
    return found
