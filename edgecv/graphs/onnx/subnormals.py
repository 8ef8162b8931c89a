"""Subnormal weights of an ONNX graph set to zero (`edgecv.subnormals`)."""

from __future__ import annotations

from typing import Any

from edgecv.subnormals import count, flush


def flush_onnx(model: Any) -> int:
    """Set the subnormal weights of an onnx.ModelProto to zero, in place; how many there were."""
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    held = [t for t in model.graph.initializer if t.data_type in floats]
    held += [
        a.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value" and a.t.data_type in floats
    ]
    total = 0
    for tensor in held:
        values = numpy_helper.to_array(tensor)
        if number := count(values):
            tensor.CopyFrom(numpy_helper.from_array(flush(values), tensor.name))
            total += number
    return total
