"""Files that parse and are no graph: refused by the name of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from onnx import TensorProto, helper

from edgecv.errors import ModelError
from edgecv.graphs.onnx.pins import Pins, pin
from edgecv.graphs.onnx.valid import check, check_domains, check_types

FLOAT = TensorProto.FLOAT


def node(x: str, y: str, name: str = "", op: str = "Relu", **given: Any) -> Any:
    return helper.make_node(op, [x], [y], name or y, **given)


def graph(*nodes: Any, outputs: tuple[str, ...] = ("y",)) -> Any:
    inputs = [helper.make_tensor_value_info("x", FLOAT, (1, 3, 8, 8))]
    ends = [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs]
    made = helper.make_graph(nodes, "g", inputs, ends)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def newer(**given: int) -> Any:
    model = graph(node("x", "y"))
    model.ir_version = given.get("ir", 8)
    model.opset_import[0].version = given.get("opset", 18)
    return model


def branching(reads: str) -> Any:
    """y = x > 0 ? Relu(reads) : x, inside the branches of an If."""

    def body(name: str, *nodes: Any) -> Any:
        ends = [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)]
        return helper.make_graph(nodes, name, [], ends)

    choice = helper.make_node(
        "If", ["c"], ["y"], "choice", then_branch=body("a", node(reads, "t")),
        else_branch=body("b", node("x", "e", op="Identity")),
    )  # fmt: skip
    asks = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", 9, (), [True]))
    return graph(asks, choice)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: graph(node("x", "y"), outputs=("y", "y")), "has two outputs named 'y'"),
        (lambda: graph(node("x", "y"), outputs=()), "has no output"),
        (lambda: graph(node("x", "y"), outputs=("y", "z")), "'z': is an output that nothing makes"),
        (lambda: graph(node("x", "y", "one"), node("x", "y", "two")),
         r"node 'two' \(Relu\): makes 'y', which node 'one' makes too"),
        (lambda: graph(node("x", "x"), node("x", "y")), "makes 'x', which an input or weight"),
        (lambda: graph(node("lost", "y")), r"node 'y' \(Relu\): reads 'lost', which nothing makes"),
        (lambda: branching("lost"), "node 't' .*reads 'lost', which nothing makes"),
        (lambda: graph(helper.make_node("Add", ["x", "b"], ["a"], "first"), node("a", "b"),
                       node("b", "y")), r"node 'first' \(Add\): waits for its own result"),
        (lambda: newer(ir=99), "IR version 99"),
        (lambda: newer(opset=99), "opset 99"),
    ],
)  # fmt: skip
def test_no_graph_is_refused_by_the_name_of_what_is_wrong(
    make: Callable[[], Any], says: str
) -> None:
    with pytest.raises(ModelError, match=says) as e:
        check(make(), "net.onnx")
    assert "\n" not in str(e.value)
    assert e.value.where.startswith("net.onnx")


def test_nodes_in_any_order_are_put_in_the_order_they_run() -> None:
    model = graph(node("b", "y"), node("x", "a"), node("a", "b"), node("x", "c"))
    check(model, "net.onnx")
    assert [n.name for n in model.graph.node] == ["a", "b", "y", "c"]
    check(branching("x"), "net.onnx")


def test_a_body_may_call_its_own_tensors_as_a_later_one_is_called() -> None:
    model = branching("x")
    model.graph.node.append(node("x", "t"))
    check(model, "net.onnx")
    assert [n.name for n in model.graph.node][1:] == ["choice", "t"]


@pytest.mark.parametrize("kind", ["sequence", "optional", "map", "text"])
def test_what_is_no_tensor_of_numbers_is_refused_by_its_kind(kind: str) -> None:
    tensor = helper.make_tensor_type_proto(FLOAT, (1, 3))
    types = {
        "sequence": helper.make_sequence_type_proto(tensor),
        "optional": helper.make_optional_type_proto(tensor),
        "map": helper.make_map_type_proto(TensorProto.INT64, tensor),
        "text": helper.make_tensor_type_proto(TensorProto.STRING, (1,)),
    }
    for role in ("input", "output"):
        model = graph(node("x", "y"), helper.make_node("Identity", ["s"], ["z"]))
        value = helper.make_value_info("s" if role == "input" else "z", types[kind])
        (model.graph.input if role == "input" else model.graph.output).append(value)
        with pytest.raises(ModelError, match=f"{role} '{value.name}': is {kind}") as e:
            check_types(model.graph, "net.onnx")
        assert "--until" in e.value.hint
        if role == "output":
            pin(model, Pins(outputs=("y",)), "net.onnx")  # and so it goes


def test_a_domain_without_a_version_is_named_unless_it_is_cut_off() -> None:
    model = graph(node("x", "a"), node("a", "y", "odd", "Gelu", domain="com.microsoft"))
    with pytest.raises(ModelError, match=r"node 'odd' \(Gelu\): is of domain 'com.microsoft'"):
        check_domains(model, "net.onnx")
    pin(model, Pins(until=("a",)), "net.onnx")
    check_domains(model, "net.onnx")
