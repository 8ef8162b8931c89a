"""Activations that the quantizer leaves in float, said with operators that it makes integer.

    leaky_relu(x) = max(x, a x)   for 0 <= a <= 1

Exact, and the Edge TPU has MUL and MAXIMUM but no LEAKY_RELU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer


def say_in_integers(model: Any) -> int:
    """Edit a float model in place; how many operators were replaced."""
    graph, made, count = flatbuffer.graph_of(model), [], 0
    for op in graph.operators:
        slope = op.builtinOptions.alpha if flatbuffer.op_name(model, op) == "LEAKY_RELU" else -1.0
        if 0 <= slope <= 1:
            made.append(_scaled(model, op, slope))
            _largest(model, op, int(made[-1].outputs[0]))
            count += 1
        made.append(op)
    graph.operators = made
    return count


def _scaled(model: Any, op: Any, slope: float) -> Any:
    """A new MUL of the operator's input by a number."""
    graph = flatbuffer.graph_of(model)
    (source,), (result,) = op.inputs, op.outputs
    name = graph.tensors[result].name
    factor = _tensor(graph, [1], name + b".slope")
    flatbuffer.set_constant(model, graph.tensors[factor], np.array([slope], np.float32))
    product = _tensor(graph, list(graph.tensors[result].shape), name + b".scaled")
    new = flatbuffer.new("OperatorT")
    new.opcodeIndex = flatbuffer.add_op(model, "MUL")
    new.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "MulOptions")
    new.builtinOptions = flatbuffer.new("MulOptionsT")
    new.inputs, new.outputs = [int(source), factor], [product]
    return new


def _largest(model: Any, op: Any, product: int) -> None:
    """Make the operator the larger one of its input and that product."""
    op.opcodeIndex = flatbuffer.add_op(model, "MAXIMUM")
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "MaximumMinimumOptions")
    op.builtinOptions = flatbuffer.new("MaximumMinimumOptionsT")
    op.inputs = [int(op.inputs[0]), product]


def _tensor(graph: Any, shape: list[int], name: bytes) -> int:
    """Index of a new float tensor without values."""
    tensor = flatbuffer.new("TensorT")
    tensor.shape, tensor.type = shape, flatbuffer.enum("TensorType", "FLOAT32")
    tensor.buffer, tensor.name, tensor.hasRank = 0, name, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
