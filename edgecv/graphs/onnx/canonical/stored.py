"""Weights that are only stored in integers, w = (q - z) s, become the floats that they stand for.

Such a file is smaller and computes in float: no activation in it is quantized. Where one is
(Q/DQ nodes between the layers, integer kernels), the integers are those of whoever quantized it
and stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, inner_reads

# Operators that make integers of what is computed, or compute in them.
INTEGER_OPS = frozenset((
    "QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
))  # and those of ONNX Runtime that are called QLinear...  # fmt: skip


def is_quantized(model: Any) -> bool:
    """Whether the graph quantizes what it computes, or takes it quantized."""
    held = {t.name for t in model.graph.initializer}
    held |= {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    return any(
        n.op_type in INTEGER_OPS
        or n.op_type.startswith("QLinear")
        or (n.op_type == "DequantizeLinear" and n.input[0] not in held)
        for n in model.graph.node
    )


def stored(draft: Draft) -> None:
    if is_quantized(draft.model):
        return
    for node in draft.nodes("DequantizeLinear"):
        q, scale, *zero = (draft.constant(name) for name in node.input if name)
        if q is None or scale is None or (zero and zero[0] is None):
            continue  # computed
        value = _floats(q, scale, zero[0] if zero else None, attributes(node))
        name = draft.hold(f"{node.output[0]}/float", value)
        for reader in draft.graph.node:
            for i, read in enumerate(reader.input):
                if read == node.output[0]:
                    reader.input[i] = name
        if not draft.uses(node.output[0]) and node.output[0] not in inner_reads(draft.graph):
            draft.remove(node)


def _floats(
    q: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, given: dict[str, Any]
) -> np.ndarray:
    """One scale of all, one a slice along `axis`, or one for every block_size along it."""
    axis, block = given.get("axis", 1), given.get("block_size", 0)
    x = q.astype(np.float32)

    def spread(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        if block:
            return np.repeat(values, block, axis).take(range(x.shape[axis]), axis)
        shape = [1] * x.ndim
        if values.size > 1:
            shape[axis] = -1
        return values.reshape(shape if x.ndim else ())

    return np.asarray((x - (spread(zero) if zero is not None else 0)) * spread(scale), np.float32)
