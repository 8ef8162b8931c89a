"""Attention of opset 23, written out: the same answers, or left as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graphs.onnx.canonical import canonical

RNG = np.random.default_rng(0)
HEADS = {"q_num_heads": 4, "kv_num_heads": 4}
ROWS = [(2, 5, 16)] * 3
FEW = np.array([[True, False, False, True, True]] * 5)


def network(shapes: list[tuple[int, ...]], mask: Any = None, outputs: int = 1, **given: Any) -> Any:
    """mask: a constant, or the shape of a fourth input"""
    names = ["q", "k", "v"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
              for n, s in zip(names, shapes, strict=True)]  # fmt: skip
    held = []
    if isinstance(mask, tuple):
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, mask))
    elif mask is not None:
        held.append(numpy_helper.from_array(np.asarray(mask), "mask"))
    read = names if mask is None else [*names, "mask"]
    made = ["y", "", "", "scores"][: 4 if outputs > 1 else 1]
    node = helper.make_node("Attention", read, made, name="a", **given)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in made if n]
    graph = helper.make_graph([node], "g", inputs, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def answers(model: Any) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feed = {i.name: rng.normal(size=i.shape).astype(np.float32) for i in session.get_inputs()}
    return [np.asarray(v) for v in session.run(None, feed)]


@pytest.mark.parametrize(("shapes", "given"), [
    ([(1, 2, 5, 8)] * 3, {}),
    ([(2, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3)], {}),
    ([(1, 6, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)], {}),
    (ROWS, HEADS),
    (ROWS, {**HEADS, "scale": 0.7}),
    (ROWS, {**HEADS, "is_causal": 1}),
    (ROWS, {**HEADS, "mask": RNG.normal(size=(5, 5)).astype(np.float32)}),
    (ROWS, {**HEADS, "mask": FEW}),
    (ROWS, {**HEADS, "mask": (2, 1, 5, 5)}),
    ([(2, 5, 16), (2, 5, 8), (2, 5, 8)], {"q_num_heads": 4, "kv_num_heads": 2}),
])  # fmt: skip
def test_it_is_written_out(shapes: list[tuple[int, ...]], given: dict[str, Any]) -> None:
    model = network(shapes, **given)
    made = canonical(model, "net.onnx")
    assert not {"Attention"} & {n.op_type for n in made.graph.node}
    for got, wanted in zip(answers(made), answers(model), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shapes", "given"), [
    (ROWS, {**HEADS, "softcap": 2.0}),
    (ROWS, {**HEADS, "outputs": 2}),
    (ROWS, {**HEADS, "mask": np.array([[True] * 5] * 4 + [[False] * 5])}),  # a row of zeros
])  # fmt: skip
def test_what_is_more_than_that_stays(shapes: list[tuple[int, ...]], given: dict[str, Any]) -> None:
    made = canonical(network(shapes, **given), "net.onnx")
    assert [n.op_type for n in made.graph.node] == ["Attention"]
