"""Whether an ov.Model holds an attention: softmax(Q Kᵀ) V."""

from __future__ import annotations

from typing import Any

from edgecv.graphs.openvino.nodes import kind, readers

WHOLE = "ScaledDotProductAttention"
# What may stand between the weights of attention and their product with the values.
BETWEEN = ("Reshape", "Transpose", "Convert", "Multiply", "Add", "Select", "FakeQuantize")


def has_attention(model: Any) -> bool:
    """Whether a softmax weighs what a matrix product sums up."""
    every = model.get_ordered_ops()
    todo = [node for node in every if kind(node) in ("Softmax", "SoftMax")]
    seen = {node.get_name() for node in todo}
    while todo:
        for reader in readers(todo.pop()):
            if kind(reader) == "MatMul":
                return True
            if kind(reader) in BETWEEN and reader.get_name() not in seen:
                seen.add(reader.get_name())
                todo.append(reader)
    return any(kind(node) == WHOLE for node in every)
