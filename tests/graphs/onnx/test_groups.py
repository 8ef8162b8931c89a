"""Outputs that hold several quantities side by side, found in the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graphs.groups import Groups
from edgecv.graphs.onnx import groups


class Net:
    """One input (1, 3, 8, 8), and nodes as they are called."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def hold(self, values: np.ndarray) -> str:
        self.held.append(numpy_helper.from_array(values, f"h{len(self.held)}"))
        return self.held[-1].name

    def conv(self, channels: int, stride: int = 1) -> str:
        w = self.hold(np.ones((channels, 3, 1, 1), np.float32))
        return self.op("Conv", "x", w, strides=[stride, stride])

    def shape(self, name: str, *sizes: int) -> str:
        return self.op("Reshape", name, self.hold(np.array(sizes, np.int64)))

    def found(self, name: str) -> Groups | None:
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        return groups.found(onnx.shape_inference.infer_shapes(model))[0]


def head(net: Net, stride: int = 1) -> str:
    """Boxes, an object's score and those of three classes."""
    parts = (
        net.conv(4, stride),
        net.op("Sigmoid", net.conv(1, stride)),
        net.op("Sigmoid", net.conv(3, stride)),
    )
    return net.op("Concat", *parts, axis=1)


def test_a_concat_of_channels_with_the_range_that_each_operator_says() -> None:
    net = Net()
    assert net.found(head(net)) == Groups(1, (0, 4, 5, 8), (None, 1.0, 1.0))


def test_levels_are_no_groups_and_are_looked_through() -> None:
    net = Net()
    levels = [net.shape(head(net, s), 1, 8, (8 // s) ** 2) for s in (1, 2, 4)]
    name = net.op("Transpose", net.op("Concat", *levels, axis=2), perm=[0, 2, 1])
    assert net.found(name) == Groups(2, (0, 4, 5, 8), (None, 1.0, 1.0))


def test_levels_alone_are_one_quantity() -> None:
    net = Net()
    rows = [net.op("Transpose", net.conv(4, s), perm=[0, 2, 3, 1]) for s in (1, 2)]
    flat = [net.shape(r, 1, -1, 4) for r in rows]
    assert net.found(net.op("Concat", *flat, axis=1)) is None


def test_levels_that_hold_other_things_are_not_split() -> None:
    net = Net()
    other = net.op("Concat", net.conv(2), net.conv(6), axis=1)
    levels = [net.shape(t, 1, 8, 64) for t in (head(net), other)]
    assert net.found(net.op("Concat", *levels, axis=2)) is None


def test_a_softmax_ends_what_is_split_only_along_its_own_axis() -> None:
    net = Net()
    assert net.found(net.op("Softmax", head(net), axis=1)) is None
    turned = net.op("Transpose", net.conv(3), perm=[0, 3, 2, 1])
    back = net.op("Transpose", net.op("Softmax", turned, axis=3), perm=[0, 3, 2, 1])
    name = net.op("Concat", net.op("Sigmoid", net.conv(1)), net.conv(4), back, axis=1)
    assert net.found(name) == Groups(1, (0, 1, 5, 8), (1.0, None, None))


def test_decoding_by_constants_and_a_concat_in_a_concat() -> None:
    net = Net()
    two = net.op("Mul", net.conv(2), net.hold(np.float32(8.0)))
    boxes = net.op("Concat", two, net.op("Exp", net.conv(2)), axis=1)
    name = net.op(
        "Concat",
        net.op("Add", boxes, net.hold(np.ones((1, 4, 1, 1), np.float32))),
        net.conv(3),
        axis=1,
    )
    assert net.found(name) == Groups(1, (0, 2, 4, 7), (None, None, None))


@pytest.mark.parametrize("widths", [[8], [1] * 9])
def test_one_quantity_and_a_map_of_features_have_none(widths: Sequence[int]) -> None:
    net = Net()
    parts = [net.conv(w) for w in widths]
    assert net.found(net.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]) is None


def test_a_new_axis_counts_where_it_is_the_last() -> None:
    net = Net()
    rows = [net.shape(net.op("Sigmoid", net.conv(1)), 1, 64), net.shape(net.conv(1), 1, 64)]
    last, first = (
        net.op("Concat", *(net.op("Unsqueeze", r, net.hold(np.array([a]))) for r in rows), axis=a)
        for a in (2, 1)
    )
    assert net.found(last) == Groups(2, (0, 1, 2), (1.0, None))
    assert net.found(first) is None  # steps of a sequence


def test_parts_of_other_ranges_say_none() -> None:
    net = Net()
    levels = [
        net.shape(net.op("Concat", net.op(k, net.conv(2)), net.conv(2), axis=1), 1, 4, 64)
        for k in ("Sigmoid", "Abs")
    ]
    name = net.op("Concat", *levels, axis=2)
    assert net.found(name) == Groups(1, (0, 2, 4), (None, None))


def test_an_operator_of_another_domain_is_not_looked_through() -> None:
    net = Net()
    name = head(net)
    net.nodes.append(helper.make_node("Relu", [name], ["mine"], domain="com.mine"))
    ends = helper.make_tensor_value_info("mine", TensorProto.FLOAT, [1, 8, 8, 8])
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph(net.nodes, "g", [source], [ends], net.held)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.mine", 1)]
    assert groups.found(helper.make_model(graph, opset_imports=opsets)) == [None]
