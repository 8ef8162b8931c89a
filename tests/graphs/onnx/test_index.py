"""Who makes and reads a tensor, and what a layer is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from edgecv.graphs.names import unique  # noqa: E402
from edgecv.graphs.onnx.constants import axis_of, constants, dequantized  # noqa: E402
from edgecv.graphs.onnx.geometry import geometry  # noqa: E402
from edgecv.graphs.onnx.index import Index  # noqa: E402
from edgecv.graphs.onnx.layers import layers, output_axis, outputs_first, rows_of, transposed  # noqa: E402
from edgecv.graphs.onnx.names import node_names  # noqa: E402


@pytest.fixture
def model() -> Any:
    """x -> Conv -> y; y + y -> z; z as rows -> Gemm -> out, whose weight lies (inputs, outputs)."""
    real, make = onnx.TensorProto.FLOAT, onnx.helper.make_node
    weight = onnx.numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "stem.weight")
    dense = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    bias = onnx.numpy_helper.from_array(np.zeros(3, np.float32))
    nodes = [
        make("Conv", ["x", "stem.weight"], ["y"], "/stem/Conv", group=2, strides=[2, 1],
             pads=[1, 0, 1, 2]),
        make("Add", ["y", "y"], ["z"], "sum"),
        make("GlobalAveragePool", ["z"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Constant", [], ["b"], value=bias),
        make("Gemm", ["f", "w", "b"], ["out"], "head"),
        make("Gemm", ["f", "w"], ["more"], "doubled", alpha=2.0),
    ]  # fmt: skip
    taken = [onnx.helper.make_tensor_value_info("x", real, [1, 2, 8, 8])]
    given = [onnx.helper.make_tensor_value_info("out", real, [1, 3])]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "n", taken, given, [weight, dense]))


def test_a_node_that_reads_twice_is_one_reader_of_two_uses(model: Any) -> None:
    index = Index(model.graph)
    assert [n.name for n in index.readers["y"]] == ["sum"]
    assert (index.uses["y"], index.uses["x"], index.uses["out"]) == (2, 1, 0)
    model.graph.node.append(onnx.helper.make_node("Dropout", ["z"], ["d", ""]))
    assert "" not in Index(model.graph).makers  # an output that nobody asks for has no maker
    assert (index.makers["z"].name, index.ends, {*index.held}) == (
        "sum", {"out"}, {"stem.weight", "w"})  # fmt: skip


def test_layers_are_those_whose_weights_are_constants_without_factors(model: Any) -> None:
    model.graph.node[5].input[2] = ""
    conv, dense = layers(model)
    assert (conv.name, dense.name) == ("/stem/Conv", "head")
    assert geometry(conv) == ([2, 1], [1, 1], [1, 0, 1, 2], 2)
    held = constants(model.graph)
    assert transposed(dense)
    assert np.array_equal(rows_of(dense, held["w"]), held["w"].T)
    assert rows_of(conv, held["stem.weight"]).shape == (4, 9)
    assert held["b"].shape == (3,)
    rows = onnx.helper.make_node("MatMul", ["f", "w"], ["rows"])
    assert np.array_equal(outputs_first(rows, held["w"]), held["w"].T)
    assert [output_axis(n) for n in (conv, dense, rows)] == [0, 1, 1]
    assert outputs_first(conv, held["stem.weight"]).shape == (4, 1, 3, 3)


def test_a_layer_answers_to_its_weight_and_its_node(model: Any) -> None:
    names = node_names(model)
    assert names["/stem/Conv"] == {"stem", "stem.weight", "/stem/Conv"}
    assert "p" in names  # called after what it makes


@pytest.mark.parametrize("axis", [0, 1])
def test_integers_stand_for_real_numbers_by_channel(axis: int) -> None:
    q = np.array([[1, 2], [3, 4]], np.int8)
    scale, zero = np.array([0.5, 2.0], np.float32), np.array([1, 0], np.int8)
    node = onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"], axis=axis)
    wanted = {0: [[0, 0.5], [6, 8]], 1: [[0, 4], [1, 8]]}[axis]
    assert np.array_equal(dequantized(q, scale, zero, axis_of(node)), wanted)
    assert np.array_equal(dequantized(q, np.float32(3), None), 3.0 * q)


def test_a_new_name_is_the_first_that_is_free() -> None:
    taken = {"conv", "conv_2"}
    assert [unique("conv", taken), unique("conv", taken), unique("new", taken)] == [
        "conv_3", "conv_4", "new"]  # fmt: skip
    assert taken == {"conv", "conv_2", "conv_3", "conv_4", "new"}
