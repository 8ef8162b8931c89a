"""Gemm with its factors in its weights.

α A' B' + β C  =  A' (α B') + (β C)     where B and C are constants, C one row of N values
               =  α · (A' B') + β · C   (MatMul, Mul, Add) where they are not

A weight that is read both as B and as Bᵀ (tied layers) becomes two: in integers it has one scale an
output channel, which is the other axis there.

A scalar C, or one of shape (1, N) or (1, 1), becomes N values; transA becomes a Transpose.
Quantizers read a Gemm as x Wᵀ + b: ONNX Runtime's folds β into the *scale* of the bias and
forgets it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes
from edgecv.graphs.onnx.layers import PRODUCTS

PLAIN = {"alpha": None, "beta": None, "transA": None}


def gemm(draft: Draft) -> None:
    for node in draft.nodes("Gemm"):
        given = attributes(node)
        alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))
        name = node.input[2] if len(node.input) > 2 else ""
        if (
            _unpacked(draft, node.input[1])
            and {alpha, beta} == {1.0}
            and not given.get("transA", 0)
        ):
            continue
        weight = draft.constant(node.input[1])
        bias = draft.constant(name) if name else None
        if given.get("transA", 0):
            _turn(draft, node)
        if weight is None:
            _apart(draft, node, alpha, beta, name)
            continue
        if alpha != 1.0:
            node.input[1] = draft.hold(f"{node.input[1]}/scaled", scaled(weight, alpha))
        width = weight.shape[0 if given.get("transB", 0) else 1]
        if name and (bias is None or not _one_row(bias, width)):
            _add_behind(draft, node, beta, name)
        elif bias is not None and (beta != 1.0 or bias.shape != (width,)):
            row = np.broadcast_to(scaled(bias, beta).reshape(-1), (width,))
            node.input[2] = draft.hold(f"{name}/row", row)
        write_attributes(node, {**PLAIN, "transB": given.get("transB") or None})


def untied(draft: Draft) -> None:
    """Each way of reading a weight reads one of its own."""
    known: dict[str, dict[tuple[str, int], str]] = {}
    for node in draft.nodes(*PRODUCTS):
        name, way = node.input[1], (node.op_type, attributes(node).get("transB", 0))
        ways = known.setdefault(name, {})
        if way not in ways:
            value = draft.constant(name) if ways else None
            ways[way] = name if value is None else draft.hold(f"{name}/{len(ways) + 1}", value)
        node.input[1] = ways[way]


def _unpacked(draft: Draft, name: str) -> bool:
    """Whether a DequantizeLinear makes it: a quantized file keeps its integers as they are."""
    maker = draft.maker(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


def scaled(values: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(values * values.dtype.type(factor), values.dtype)


def _one_row(bias: np.ndarray, width: int) -> bool:
    return bias.size in (1, width) and bias.shape in ((), (1,), (1, 1), (width,), (1, width))


def _turn(draft: Draft, node: Any) -> None:
    turned = draft.unique(f"{node.input[0]}/turned")
    draft.before(node, draft.make("Transpose", [node.input[0]], turned, perm=[1, 0]))
    node.input[0] = turned


def _term(draft: Draft, node: Any, beta: float, name: str) -> str:
    """β C as a tensor; made in front of the node if it is computed."""
    if beta == 1.0:
        return name
    value = draft.constant(name)
    if value is not None:
        return draft.hold(f"{name}/scaled", scaled(value, beta))
    made, factor = draft.unique(f"{name}/scaled"), draft.hold("beta", np.float32(beta))
    draft.before(node, draft.make("Mul", [name, factor], made))
    return made


def _add_behind(draft: Draft, node: Any, beta: float, name: str) -> None:
    out, term = node.output[0], _term(draft, node, beta, name)
    del node.input[2:]
    node.output[0] = draft.unique(f"{out}/product")
    draft.behind(node, draft.make("Add", [node.output[0], term], out))


def _apart(draft: Draft, node: Any, alpha: float, beta: float, name: str) -> None:
    """A B' with a B that is computed: no dense layer, but a product of two tensors."""
    out = node.output[0]
    if name:
        _add_behind(draft, node, beta, name)
    if alpha != 1.0:
        product, factor = node.output[0], draft.hold("alpha", np.float32(alpha))
        node.output[0] = draft.unique(f"{out}/unscaled")
        draft.behind(node, draft.make("Mul", [node.output[0], factor], product))
    if attributes(node).get("transB", 0):
        turned = draft.unique(f"{node.input[1]}/turned")
        draft.before(node, draft.make("Transpose", [node.input[1]], turned, perm=[1, 0]))
        node.input[1] = turned
    node.op_type = "MatMul"
    del node.attribute[:]
