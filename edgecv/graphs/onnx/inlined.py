"""Tensors that ONNX Runtime named when it wrote an operator as what it is made of (HardSwish)."""

from __future__ import annotations

from typing import Any

from edgecv.graphs.names import unique

INLINED = "_inlfunc_"  # ONNX Runtime's


def rename_inlined(graph: Any) -> None:
    """Give them names of their own, in place. Those would be given again, and the graph refused
    as one that defines a tensor twice, if it gained one more such operator."""
    every = {name for node in graph.node for name in (*node.input, *node.output)}
    made = [name for node in graph.node for name in node.output if name.startswith(INLINED)]
    new = {name: unique(name.replace(INLINED, "inlined_", 1), every) for name in made}
    for node in graph.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = new.get(name, name)
    for value in graph.value_info:
        value.name = new.get(value.name, value.name)
