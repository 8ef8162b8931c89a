"""Nodes that change nothing at inference go: Identity and Dropout.

Dropout(x) = x where it is not in training mode. A Dropout that is left on is no function of its
input and stays, to be refused where answers are compared.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.onnx.draft import Draft, inner_reads


def leftovers(draft: Draft) -> None:
    ends = {o.name for o in draft.graph.output}
    inner = inner_reads(draft.graph)
    for node in draft.nodes("Identity", "Dropout"):
        x, out = node.input[0], node.output[0]
        if node.op_type == "Dropout" and not _off(draft, node):
            continue
        if any(draft.uses(n) for n in node.output[1:] if n) or out in inner or out in ends:
            continue
        for reader in draft.graph.node:
            for i, name in enumerate(reader.input):
                if name == out:
                    reader.input[i] = x
        draft.remove(node)


def _off(draft: Draft, node: Any) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = draft.constant(node.input[2])
    return training is not None and not training.any()
