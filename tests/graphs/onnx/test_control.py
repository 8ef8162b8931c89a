"""Loops, branches and places that hang on constants: written out, and what they answer stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.methods.export.onnx import load_onnx
from tests.methods.export.test_onnx_entry import answer, normal, save

SHAPE = (1, 3, 8, 8)
FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def value(name: str, kind: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def loop(ends: str = "on", nested: bool = False) -> tuple[Any, dict[str, Any]]:
    """v = conv(v) / (turn + 1) + x, every turn's mean besides; nested: halved by a second loop."""
    nodes = [
        helper.make_node("Conv", ["v", "k"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["turn"], ["t"], to=FLOAT),
        helper.make_node("Add", ["t", "one"], ["u"]),
        helper.make_node("Div", ["c", "u"], ["d"]),
        helper.make_node("Add", ["d", "x"], ["w"]),
        helper.make_node("GlobalAveragePool", ["w"], ["mean"]),
        helper.make_node("ReduceMax", ["w"], ["top"], keepdims=0),
        helper.make_node("Less", ["top", "most"], ["small"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    held = [numpy_helper.from_array(normal(3, 3, 3, 3), "k"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(5, np.float32), "most")]  # fmt: skip
    if nested:
        inner = helper.make_graph(
            [helper.make_node("Mul", ["b", "d"], ["b2"]),
             helper.make_node("Identity", ["g"], ["h"])],
            "inner", [value("i", INT, ()), value("g", BOOL, ()), value("b")],
            [value("h", BOOL, ()), value("b2")],
        )  # fmt: skip
        nodes[4] = helper.make_node("Loop", ["two", "", "x"], ["w"], "inner", body=inner)
    body = helper.make_graph(
        nodes, "body", [value("turn", INT, ()), value("go", BOOL, ()), value("v")],
        [value(ends, BOOL, ()), value("w"), value("mean")], held,
    )  # fmt: skip
    return helper.make_node("Loop", ["count", "yes", "x"], ["last", "means"], "loop", body=body), {
        "count": np.array(3, np.int64), "yes": np.array(True), "two": np.array(2, np.int64),
    }  # fmt: skip


def through(path: Path, out: Path) -> Any:
    graph = load_onnx(path, out)
    x = normal(*SHAPE)
    np.testing.assert_allclose(answer(graph.path, x), answer(path, x), rtol=1e-4, atol=1e-5)
    return graph


def looped(path: Path, opset: int, **given: Any) -> Path:
    node, held = loop(**given)
    nodes = [
        node,
        helper.make_node("Reshape", ["means", "flat"], ["m"]),
        helper.make_node("GlobalAveragePool", ["last"], ["l"]),
        helper.make_node("Flatten", ["l"], ["f"]),
        helper.make_node("Concat", ["m", "f"], ["y"], axis=1),
    ]
    held["flat"] = np.array([1, -1], np.int64)
    return save(path, nodes, SHAPE, opset=opset, **held)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_loop_of_a_constant_count_is_written_out(tmp_path: Path, opset: int) -> None:
    graph = through(looped(tmp_path / "net.onnx", opset), tmp_path / "out")
    assert graph.facts["ops"]["Conv"] == 3
    assert "Loop" not in graph.facts["ops"]
    assert "loop/2/conv" in {n.name for n in onnx.load(str(graph.path)).graph.node}


def test_a_loop_in_a_loop_is_written_out(tmp_path: Path) -> None:
    graph = through(looped(tmp_path / "net.onnx", 18, nested=True), tmp_path / "out")
    assert "Loop" not in graph.facts["ops"]
    assert graph.facts["ops"]["Conv"] == 3


def test_a_loop_that_the_image_ends_stays(tmp_path: Path) -> None:
    graph = through(looped(tmp_path / "net.onnx", 18, ends="small"), tmp_path / "out")
    assert graph.facts["ops"]["Loop"] == 1


def test_the_branch_of_a_constant_condition_is_taken(tmp_path: Path) -> None:
    taken = [helper.make_node("Squeeze", ["x"], ["s"], axes=[0]),
             helper.make_node("Unsqueeze", ["s"], ["t"], axes=[0])]  # fmt: skip
    other = [helper.make_node("Relu", ["x"], ["e"])]
    branches = [helper.make_graph(n, n[-1].output[0], [], [value(n[-1].output[0])])
                for n in (taken, other)]  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Gather", ["n", "axis"], ["c"]),
        helper.make_node("Equal", ["c", "three"], ["q"]),
        helper.make_node("If", ["q"], ["r"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sigmoid", ["r"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, SHAPE, opset=11, axis=np.array(1, np.int64),
                three=np.array(3, np.int64))  # fmt: skip
    graph = through(path, tmp_path / "out")
    assert "If" not in graph.facts["ops"]
    assert graph.facts["ops"]["Sigmoid"] == 1


def test_places_of_a_constant_are_constants(tmp_path: Path) -> None:
    """As torch writes x[:, :, mask]: NonZero of a mask, gathered by."""
    mask = np.arange(64) % 3 == 0
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Reshape", ["places", "all"], ["p"]),
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Gather", ["f", "p"], ["g"], axis=2),
        helper.make_node("Sigmoid", ["g"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, SHAPE, mask=mask, all=np.array([-1], np.int64),
                flat=np.array([1, 3, 64], np.int64))  # fmt: skip
    graph = through(path, tmp_path / "out")
    assert graph.facts["ops"] == {"Gather": 1, "Reshape": 1, "Sigmoid": 1}
    assert graph.outputs[0].shape == (1, 3, 22)
