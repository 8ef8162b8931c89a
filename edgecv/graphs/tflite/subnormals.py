"""Subnormal weights of a .tflite file set to zero (`edgecv.subnormals`)."""

from __future__ import annotations

from typing import Any

from edgecv.graphs.tflite import flatbuffer
from edgecv.subnormals import count, flush


def flush_tflite(model: Any) -> int:
    """Set the subnormal weights of a ModelT to zero, in place; how many there were."""
    kinds = {flatbuffer.enum("TensorType", k) for k in ("FLOAT32", "FLOAT16")}
    total = 0
    for tensor in flatbuffer.graph_of(model).tensors:
        values = flatbuffer.constant(model, tensor) if tensor.type in kinds else None
        if values is not None and (number := count(values)):
            flatbuffer.set_constant(model, tensor, flush(values))
            total += number
    return total
