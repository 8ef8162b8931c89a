"""Who makes, reads and holds each tensor of an ONNX graph."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import Any


class Index:
    """Of an onnx.GraphProto, each table made when it is first asked for: a table does not follow
    what is edited afterwards.

    Tables are by the tensor's name. Bodies of If and Loop are graphs of their own (`draft.bodies`).
    """

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    @cached_property
    def makers(self) -> dict[str, Any]:
        """The node that gives a tensor."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def readers(self) -> defaultdict[str, list[Any]]:
        """The nodes that read a tensor, each once, in the file's order."""
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    @cached_property
    def uses(self) -> Counter[str]:
        """How many inputs of nodes read a tensor: two of a node that adds it to itself."""
        return Counter(name for node in self.graph.node for name in node.input)

    @cached_property
    def held(self) -> dict[str, Any]:
        """Initializers, as onnx.TensorProto."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def ends(self) -> set[str]:
        """Names of the graph's outputs."""
        return {output.name for output in self.graph.output}
