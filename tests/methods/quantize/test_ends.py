"""What stands behind the last product is not rounded; limits that mean nothing are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.bundling import remarks
from edgecv.errors import RecipeError
from edgecv.graph import Graph
from edgecv.limits import Limits
from edgecv.methods.quantize.keep_float import free_outputs
from edgecv.runtime.spec import TensorSpec
from edgecv.stages.quantize import _check_drop
from tests import networks as nets


def pair(tensor: str, out: str) -> list[onnx.NodeProto]:
    """A Q/DQ pair from one tensor to the other."""
    return [
        helper.make_node("QuantizeLinear", [tensor, "s", "z"], [f"{tensor}/q"]),
        helper.make_node("DequantizeLinear", [f"{tensor}/q", "s", "z"], [out]),
    ]


def pooled() -> onnx.ModelProto:
    """Conv, pair, GlobalAveragePool, pair, Flatten, pair; 3 classes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]), *pair("a", "a1"),
        helper.make_node("GlobalAveragePool", ["a1"], ["b"]), *pair("b", "b1"),
        helper.make_node("Flatten", ["b1"], ["c"]), *pair("c", "y"),
    ]  # fmt: skip
    weights = [
        numpy_helper.from_array(
            np.random.default_rng(0).normal(size=(3, 2, 1, 1)).astype("f4"), "w"
        ),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.uint8(128), "z"),
    ]
    graph = helper.make_graph(
        nodes, "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def answers(model: onnx.ModelProto) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype("f4")
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])


def test_a_mean_of_a_rounded_map_is_not_rounded_again() -> None:
    model = pooled()
    steps = answers(model) / 0.1
    assert np.allclose(steps, np.rint(steps), atol=1e-3)
    free_outputs(model)
    onnx.checker.check_model(model, full_check=True)
    ops = [n.op_type for n in model.graph.node]
    assert ops == ["Conv", "QuantizeLinear", "DequantizeLinear", "GlobalAveragePool", "Flatten"]
    finer = answers(model) / 0.1
    assert not np.allclose(finer, np.rint(finer), atol=1e-3)
    assert np.abs(finer - steps).max() <= 0.51


def test_a_map_that_others_read_stays_rounded() -> None:
    model = pooled()
    model.graph.output.append(helper.make_tensor_value_info("b/q", TensorProto.UINT8, (1, 3, 1, 1)))
    model.graph.node.append(helper.make_node("Identity", ["b/q"], ["d"]))
    free_outputs(model)
    assert sum(n.op_type == "QuantizeLinear" for n in model.graph.node) == 2


def graph(shape: tuple[int, ...], kind: str | None = None) -> Graph:
    spec = TensorSpec("y", "float32", shape, kind=kind)
    return Graph(Path("net.onnx"), "onnx", "fp32", (), (spec,))


def test_one_number_has_no_accuracy_to_lose(tmp_path: Path) -> None:
    limit, here = Limits(accuracy_drop=0.2), nets.context(tmp_path)
    with pytest.raises(RecipeError, match="no best class"):
        _check_drop(graph((1, 1)), limit, here)
    with pytest.raises(RecipeError, match="no best class"):
        _check_drop(graph((1, 2), "values"), limit, here)
    _check_drop(graph((1, 2)), limit, here)
    _check_drop(graph((1, 1)), Limits(latency_ms=1), here)


def test_a_drop_of_boxes_is_refused_without_labels(tmp_path: Path) -> None:
    here = nets.context(tmp_path, task="detection")
    with pytest.raises(RecipeError, match="what detection loses of its mAP is not known"):
        _check_drop(graph((1, 189, 7)), Limits(accuracy_drop=0.2), here)


def test_accuracy_that_guessing_gives_is_told() -> None:
    assert list(remarks.guesses({"value": 0.11, "samples": 100}, 10))
    assert not list(remarks.guesses({"value": 0.4, "samples": 100}, 10))
    assert not list(remarks.guesses(None, 10))


def test_answers_that_cannot_be_judged_are_told() -> None:
    one = {"flat": False, "answers": 1, "samples": 8}
    assert "one class" in next(remarks.doubts(one, classifies=True))
    assert "the same for every image" in next(
        remarks.doubts({**one, "flat": True}, classifies=False)
    )
    assert not list(remarks.doubts({**one, "answers": 3}, classifies=True))
    assert not list(remarks.doubts(one, classifies=False)), "channels of a map are no classes"


def test_what_int8_lost_is_told():
    assert "12.4 dB" in next(remarks.losses("int8", {"sqnr_db": 12.4}))
    assert not list(remarks.losses("int8", {"sqnr_db": 18.0}))
    assert not list(remarks.losses("fp16", {"sqnr_db": 12.4}))
    assert not list(remarks.losses("int8", None))
