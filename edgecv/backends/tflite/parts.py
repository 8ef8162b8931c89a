"""New parts of a .tflite that is rewritten: activations, constants, operators that move."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer

OPTIONS = {
    "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "SLICE": "SliceOptions",
}


def activation(model: Any, name: str, shape: list[int], like: Any) -> int:
    """The place of a new tensor without values, of another's type and grid."""
    made = flatbuffer.add_tensor(model, name, shape)
    held = flatbuffer.graph_of(model).tensors[made]
    held.type, held.quantization = like.type, like.quantization
    return made


def numbers(model: Any, name: str, values: Any) -> int:
    """The place of a new constant, int32."""
    values = np.asarray(values, np.int32)
    made = flatbuffer.add_tensor(model, name, list(values.shape))
    held = flatbuffer.graph_of(model).tensors[made]
    held.type = flatbuffer.enum("TensorType", "INT32")
    flatbuffer.set_constant(model, held, values)
    return made


def operator(model: Any, kind: str, inputs: list[int], output: int) -> Any:
    """A new operator, which is in no list yet; its version takes int8."""
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, kind, 2)
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", OPTIONS[kind])
    op.builtinOptions = flatbuffer.new(f"{OPTIONS[kind]}T")
    op.inputs, op.outputs = inputs, [output]
    return op
