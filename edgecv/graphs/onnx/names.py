"""What the layers of an ONNX graph are called."""

from __future__ import annotations

from typing import Any

from edgecv.graphs.names import names_of
from edgecv.graphs.onnx.layers import WEIGHTED
from edgecv.runtime.layers import layer_of


def node_names(model: Any) -> dict[str, frozenset[str]]:
    """Names by node name, of every node but constants. Nameless nodes get their output's name.

    model: onnx.ModelProto, whose nodes are named in place
    """
    held = {t.name for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Constant" or not node.output:
            continue
        node.name = node.name or node.output[0]
        weights = [n for n in node.input[1:] if n in held]
        found[node.name] = names_of(weights, [node.name])
    return found


def layer_name(node: Any) -> str:
    """The layer as `edgecv bench --profile` calls it; a node that is no layer, by its own name."""
    weights = node.input[1:2] if node.op_type in WEIGHTED else ()
    return layer_of(weights, (node.name,)) or str(node.name)
