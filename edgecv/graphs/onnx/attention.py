"""Whether an ONNX graph holds an attention: softmax(Q Kᵀ) V."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.graphs.onnx.index import Index

# What may stand between the weights of attention and their product with the values.
BETWEEN = ("Reshape", "Transpose", "Cast", "Dropout", "Identity", "Mul", "Add", "Where",
           "QuantizeLinear", "DequantizeLinear")  # fmt: skip


def attends(path: Path) -> bool:
    """Whether an .onnx file holds an attention."""
    import onnx

    return has_attention(onnx.load_model(str(path), load_external_data=False))


def has_attention(model: Any) -> bool:
    """Whether a softmax weighs what a matrix product sums up. model: onnx.ModelProto"""
    readers = Index(model.graph).readers
    todo = [n.output[0] for n in model.graph.node if n.op_type == "Softmax"]
    seen = set(todo)
    while todo:
        for reader in readers[todo.pop()]:
            if reader.op_type in ("MatMul", "Einsum"):
                return True
            if reader.op_type in BETWEEN and reader.output[0] not in seen:
                seen.add(reader.output[0])
                todo.append(reader.output[0])
    return False
