"""Graphs whose answers are as many as there are: the sentence names where to cut, which works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export.onnx import load_onnx

RNG = np.random.default_rng(0)


def saved(path: Path, tail: list[onnx.NodeProto], outputs: dict[str, int], **held: object) -> Path:
    """Boxes (1, 64, 4) and scores (1, 2, 64) of a convolution each, then `tail`."""
    constants = {
        "wb": RNG.normal(0, 1, (4, 3, 1, 1)).astype("f4"),
        "ws": RNG.normal(0, 1, (2, 3, 1, 1)).astype("f4"),
        "by_box": np.array([1, 4, 64]), "by_class": np.array([1, 2, 64]),
        **{k: np.asarray(v) for k, v in held.items()},
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "wb"], ["b"]),
        helper.make_node("Reshape", ["b", "by_box"], ["b3"]),
        helper.make_node("Transpose", ["b3"], ["boxes"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["x", "ws"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["p"]),
        helper.make_node("Reshape", ["p", "by_class"], ["scores"]),
        *tail,
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


NMS = [
    helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["found"],
                     "nms"),
    helper.make_node("Gather", ["found", "second"], ["which"], axis=1),
]  # fmt: skip
KNOBS = {"most": np.int64(10), "iou": np.float32(0.5), "least": np.float32(0.1),
         "second": np.int64(2)}  # fmt: skip


def until(error: UnsupportedError) -> tuple[str, ...]:
    return tuple(re.findall(r"--until '([^']+)'", error.hint))


def test_suppression_is_cut_in_front_of(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", NMS, {"which": TensorProto.INT64}, **KNOBS)
    with pytest.raises(UnsupportedError, match=r"'nms' \(NonMaxSuppression\): finds as many") as e:
        load_onnx(path, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert "output 'which'" in e.value.what
    cuts = until(e.value)
    graph = load_onnx(path, tmp_path / "cut", pins=Pins(until=cuts))
    assert [t.name for t in graph.outputs] == list(cuts)
    assert len(cuts) == 2


def test_outputs_that_do_not_hang_on_it_may_stay(tmp_path: Path) -> None:
    outputs = {"scores": TensorProto.FLOAT, "which": TensorProto.INT64}
    path = saved(tmp_path / "net.onnx", NMS, outputs, **KNOBS)
    with pytest.raises(UnsupportedError, match="--output 'scores'"):
        load_onnx(path, tmp_path / "no")
    graph = load_onnx(path, tmp_path / "cut", pins=Pins(outputs=("scores",)))
    assert [t.name for t in graph.outputs] == ["scores"]


def test_what_is_compared_is_not_what_is_wanted(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Greater", ["scores", "least"], ["mask"]),
        helper.make_node("NonZero", ["mask"], ["where"]),
    ]
    path = saved(tmp_path / "net.onnx", tail, {"where": TensorProto.INT64}, least=KNOBS["least"])
    with pytest.raises(UnsupportedError) as e:
        load_onnx(path, tmp_path / "no")
    assert until(e.value) == ("p",)


def test_as_many_of_something_fixed_is_no_trouble(tmp_path: Path) -> None:
    tail = [
        helper.make_node("TopK", ["scores", "k"], ["best", "places"]),
        helper.make_node("NonZero", ["mask"], ["where"]),  # of a constant
        helper.make_node("Cast", ["where"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["w"], ["total"], keepdims=0),
        helper.make_node("Add", ["best", "total"], ["y"]),
    ]
    path = saved(tmp_path / "net.onnx", tail,
                 {"y": TensorProto.FLOAT, "places": TensorProto.INT64},
                 k=np.array([5]), mask=np.array([0, 1, 1], "f4"))  # fmt: skip
    graph = load_onnx(path, tmp_path / "graph")
    assert [t.shape for t in graph.outputs] == [(1, 2, 5), (1, 2, 5)]
