"""Outputs whose range is known by the operator that makes them: rounding has its size.

A sigmoid of -20 is 2e-9 in one kernel and 0 in the next: both are right to one rounding of numbers
of 0 to 1, and as far apart as can be where only their ratio is looked at.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.onnx.index import Index

# Operator -> the largest magnitude that it gives.
BOUNDS = {"Sigmoid": 1.0, "Tanh": 1.0, "HardSigmoid": 1.0}
_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice")
# softmax is not among them: its kernels keep small shares exact
KERNEL = 1e-6  # of the bound: what approximate kernels in float32 leave


def bounded(graph: Any) -> dict[str, float]:
    """Output name -> the largest magnitude that its operator gives, of those that are known.

    graph: an onnx.GraphProto
    """
    makers = Index(graph).makers
    found = {}
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _MOVES:
            node = makers.get(node.input[0])
        if node is not None and node.op_type in BOUNDS and node.domain in ("", "ai.onnx"):
            found[output.name] = BOUNDS[node.op_type]
    return found
