"""Constant tensors of an ONNX graph as arrays, and integers as the real numbers they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np


def initializers(graph: Any) -> dict[str, np.ndarray]:
    """Values by name of what an onnx.GraphProto holds."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def constants(graph: Any) -> dict[str, np.ndarray]:
    """The same, and what Constant nodes hold as tensors."""
    from onnx import numpy_helper

    found = initializers(graph)
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def dequantized(
    q: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int = 1
) -> np.ndarray:
    """scale * (q - zero) in float32, by channel along `axis` where there are several scales.

    zero: None stands for 0
    """
    side = [1] * q.ndim
    if scale.size > 1:
        side[axis] = -1
    point = np.zeros_like(scale) if zero is None else zero
    real = q.astype(np.float32) - point.astype(np.float32).reshape(side)
    return np.asarray(real * scale.astype(np.float32).reshape(side), np.float32)


def axis_of(node: Any) -> int:
    """The axis of a QuantizeLinear's or DequantizeLinear's scales."""
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 1)
