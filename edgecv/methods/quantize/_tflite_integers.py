"""Operators that the quantizer leaves in float, made integer all the same.

    leaky_relu(x) = max(x, a x)   for 0 <= a <= 1
    |x| = max(x, -x)

Exact, and the Edge TPU has MUL and MAXIMUM but neither LEAKY_RELU nor ABS.

LiteRT computes the operators of TWINS in int8 on the grids of their twins, which are those that the
quantizer knows (one grid for all that a MINIMUM reads and makes, as for MAXIMUM). So it is shown
the twins in their place: it asks where tensors go, not what becomes of them, and is given ranges.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, layers, operand

TWINS = {
    "MINIMUM": "MAXIMUM",
    "REDUCE_MAX": "REDUCE_MIN",
    "RELU_N1_TO_1": "RELU",
    "RELU_0_TO_1": "RELU",
}
_SLOPES = {"LEAKY_RELU": lambda op: op.builtinOptions.alpha, "ABS": lambda _op: -1.0}


def say_in_integers(model: Any) -> int:
    """Edit a float model in place; how many operators were replaced."""
    graph, made, count = flatbuffer.graph_of(model), [], 0
    for op in graph.operators:
        kind = flatbuffer.op_name(model, op)
        slope = _SLOPES[kind](op) if kind in _SLOPES else None
        if slope is not None and slope <= 1 and (slope >= 0 or kind == "ABS"):
            made.append(_scaled(model, op, slope))
            _largest(model, op, int(made[-1].outputs[0]))
            count += 1
        made.append(op)
    graph.operators = made
    return count


def flatten_biases(model: Any) -> int:
    """Edit a float model in place: biases of several axes, (1, 1, 1, O), have one, since scales per
    channel lie along the first; how many there were."""
    graph, count = flatbuffer.graph_of(model), 0
    for kind, op in layers(model):
        bias, place = operand(model, kind, op, 2), OPERANDS[kind][2]
        if bias is None or len(bias.shape) < 2 or flatbuffer.constant(model, bias) is None:
            continue
        flat = flatbuffer.add_tensor(
            model, f"{bias.name.decode()}.flat", [int(np.prod(bias.shape))]
        )
        graph.tensors[flat].buffer = bias.buffer
        op.inputs[place] = flat
        count += 1
    return count


def as_twins(model: Any) -> dict[int, int]:
    """Edit a model in place: kinds that the quantizer does not know become their twins.

    Returns what `as_themselves` undoes it with: place among the operator codes -> builtin code.
    """
    codes = {flatbuffer.enum("BuiltinOperator", k): t for k, t in TWINS.items()}
    found = {}
    for place, code in enumerate(model.operatorCodes):
        own = int(code.builtinCode)
        if own in codes:
            found[place] = own
            _name(code, flatbuffer.enum("BuiltinOperator", codes[own]))
    return found


def as_themselves(model: Any, twins: dict[int, int]) -> None:
    """Undo `as_twins` in the quantized model, whose own operator codes come behind."""
    for place, own in twins.items():
        _name(model.operatorCodes[place], own)


def _name(code: Any, builtin: int) -> None:
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)


def _scaled(model: Any, op: Any, slope: float) -> Any:
    """A new MUL of the operator's input by a number."""
    graph = flatbuffer.graph_of(model)
    (source,), (result,) = op.inputs, op.outputs
    name = graph.tensors[result].name.decode()
    factor = flatbuffer.add_tensor(model, f"{name}.slope", [1])
    flatbuffer.set_constant(model, graph.tensors[factor], np.array([slope], np.float32))
    shape = list(graph.tensors[result].shape)
    product = flatbuffer.add_tensor(model, f"{name}.scaled", shape)
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
