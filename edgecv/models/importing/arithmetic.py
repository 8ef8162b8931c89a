"""Operators that take each value by itself, or two tensors value by value."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from edgecv.models.importing.reader import Node, Operator


def function(of: Callable[..., Any]) -> Operator:
    """A function of one tensor, without attributes."""
    return lambda node: node.call(of, node.x())


def binary(of: Callable[..., Any]) -> Operator:
    """A function of two, either of which may be a number."""
    return lambda node: node.call(of, node.operand(0), node.operand(1))


def tensors(of: Callable[..., Any]) -> Operator:
    """A function of two that takes no plain numbers."""
    return lambda node: node.call(of, node.tensor(0), node.tensor(1))


def folded(of: Callable[..., Any]) -> Operator:
    """A function of two, over one or more inputs: max(max(a, b), c)."""

    def read(node: Node) -> fx.Node:
        parts = [node.tensor(index) for index in range(len(node.proto.input))]
        return reduce(lambda a, b: node.call(of, a, b), parts)

    return read


def add(node: Node) -> fx.Node:
    """Addition; behind a Linear without bias, a constant row becomes its bias."""
    for flow, other in ((0, 1), (1, 0)):
        name, bias = node.proto.input[flow], node.constant(other)
        made = node.reader.nodes.get(name)
        if made is None or bias is None or made.op != "call_module":
            continue
        layer = node.reader.root.get_submodule(str(made.target))
        fits = isinstance(layer, nn.Linear) and layer.bias is None
        if fits and bias.shape == (layer.out_features,) and node.reader.uses[name] == 1:
            layer.bias = nn.Parameter(torch.from_numpy(np.array(bias)))
            return made
    return node.call(torch.add, node.operand(0), node.operand(1))


def div(node: Node) -> fx.Node:
    """Integers are cut towards zero."""
    if node.whole(0) and node.whole(1):
        a, b = node.operand(0), node.operand(1)
        return node.call(torch.div, a, b, rounding_mode="trunc")
    return node.call(torch.div, node.operand(0), node.operand(1))


def mod(node: Node) -> fx.Node:
    """fmod: the sign of the dividend; otherwise that of the divisor."""
    of = torch.fmod if node.attr("fmod", 0) else torch.remainder
    return node.call(of, node.tensor(0), node.operand(1))


def power(node: Node) -> fx.Node:
    """x^p; a square and a root are said as such, which engines have kernels for."""
    exponent = node.constant(1)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= 1:
        value = float(exponent.item())
        if value == 2:
            return node.call(torch.mul, node.x(), node.x())
        if value == 0.5:
            return node.call(torch.sqrt, node.x())
        return node.call(torch.pow, node.x(), value)
    return node.call(torch.pow, node.operand(0), node.operand(1))


def mean(node: Node) -> fx.Node:
    """The mean of its inputs, value by value."""
    return node.call(torch.div, folded(torch.add)(node), float(len(node.proto.input)))


def where(node: Node) -> fx.Node:
    return node.call(torch.where, node.tensor(0), node.tensor(1), node.tensor(2))


_KINDS = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float32,  # nothing flows in double
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.BOOL: torch.bool,
}


def cast(node: Node) -> fx.Node:
    kind = node.attr("to", 0)
    if kind not in _KINDS:
        name = onnx.TensorProto.DataType.Name(kind).lower()
        node.refuse(f"a cast to {name}: float32 flows, and integers of 32 and 64 bits")
    x = node.x()
    return x if x.meta["dtype"] == _KINDS[kind] else node.call(torch.Tensor.to, x, _KINDS[kind])


def cast_like(node: Node) -> fx.Node:
    like = node.tensor(1).meta["dtype"]
    return (
        node.x() if node.x().meta["dtype"] == like else node.call(torch.Tensor.to, node.x(), like)
    )
