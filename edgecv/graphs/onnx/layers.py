"""Layers of an ONNX graph: which nodes they are and how their weights lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

CONVOLUTIONS = ("Conv", "ConvTranspose")
DENSE = ("Gemm", "MatMul")
# Nodes that multiply, by constants or (MatMul, and any of them) by what is computed.
PRODUCTS = (*CONVOLUTIONS, *DENSE)
# Those whose outputs are sums over one window of the input each: all but transposed convolutions.
KINDS = {"Conv": "conv", **dict.fromkeys(DENSE, "dense")}
FORWARD = tuple(KINDS)
# Those whose second input is a layer's weights whenever it is constant; MatMul has two equal ones.
WEIGHTED = (*CONVOLUTIONS, "Gemm")


def layers(model: Any) -> Iterator[Any]:
    """Nodes that a quantizer settles: convolutions of images and dense layers whose weights and
    biases are constants."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        constant = all(n in shapes for n in node.input[1:] if n)
        if not constant or len(node.input) < 2:
            continue
        if (node.op_type == "Conv" and len(shapes[node.input[1]]) == 4) or (
            node.op_type == "Gemm" and plain(node)
        ):
            yield node


def plain(node: Any) -> bool:
    """Whether a Gemm is x Wᵀ + b or x W + b: no factors, and x as it is."""
    given = {a.name: a for a in node.attribute}
    factors = {given[n].f for n in ("alpha", "beta") if n in given}
    return factors <= {1.0} and not ("transA" in given and given["transA"].i)


def transposed(node: Any) -> bool:
    """Whether a Gemm holds its weight as (inputs, outputs)."""
    return node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)


def output_axis(node: Any) -> int:
    """Which axis of a `FORWARD` node's weight, as it lies in the file, is the output channel.
    (ConvTranspose holds (I, O / groups, kh, kw).)"""
    return int(transposed(node) or node.op_type == "MatMul")


def outputs_first(node: Any, weight: np.ndarray) -> np.ndarray:
    """Its weight as (O, I / groups, kh, kw) or (O, I); also back to what the file holds."""
    return weight.T if output_axis(node) else weight


def rows_of(node: Any, weight: np.ndarray) -> np.ndarray:
    """The weight, output channel first, as (O, inputs of one output)."""
    weight = outputs_first(node, weight)
    return weight.reshape(len(weight), -1)
