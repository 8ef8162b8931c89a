"""Attention is found by what it computes, whatever its nodes are called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graphs.onnx.attention import has_attention


def attention(between: list[str], product: str = "MatMul") -> onnx.ModelProto:
    """softmax(x xᵀ) with nodes between it and what it weighs."""
    nodes, last = [helper.make_node("Softmax", ["s"], ["p"])], "p"
    for i, op in enumerate(between):
        second = ["one"] if op == "Mul" else []
        nodes.append(helper.make_node(op, [last, *second], [f"b{i}"]))
        last = f"b{i}"
    nodes.append(helper.make_node(product, [last, "v"], ["y"]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 4, 4]) for n in "svy"]
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    return helper.make_model(helper.make_graph(nodes, "g", ends[:2], ends[2:], [one]))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (lambda: attention([]), True),
        (lambda: attention(["Mul", "Transpose"]), True),
        (lambda: attention(["Relu"]), False),
        (lambda: attention([], "Add"), False),
    ],
)
def test_attention_is_a_softmax_that_weighs_a_product(
    model: Callable[[], onnx.ModelProto], found: bool
) -> None:
    assert has_attention(model()) is found
