"""What .onnx files say of themselves as Ultralytics' exporter writes it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from edgecv.graphs.onnx import metadata  # noqa: E402
from edgecv.methods.export.onnx import load_onnx  # noqa: E402

ULTRALYTICS = {
    "description": "Ultralytics YOLOv8n model trained on spots", "task": "detect", "stride": "32",
    "batch": "1", "imgsz": "[16, 24]", "names": "{0: 'moth', 1: \"lamp's\"}",
}  # fmt: skip


def model(side: int | str | None = None, **texts: str) -> onnx.ModelProto:
    """A network of a picture (1, 3, 16, 24), or of open sides, with that metadata."""
    from onnx import TensorProto, helper, numpy_helper

    sides = [f"{side}h", f"{side}w"] if isinstance(side, str) else [16, 24]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, *sides])
            for name in ("images", "out")]  # fmt: skip
    graph = helper.make_graph([helper.make_node("Mul", ["images", "two"], ["out"])], "g",
                              ends[:1], ends[1:],
                              [numpy_helper.from_array(np.float32(2), "two")])  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in texts.items():
        made.metadata_props.add(key=key, value=value)
    return made


def test_labels_size_and_letterbox() -> None:
    said = metadata.said(model(**ULTRALYTICS))
    assert said == metadata.Said(("moth", "lamp's"), (16, 24), letterboxed=True)
    assert said.input() == {**metadata.LETTERBOXED, "labels": ["moth", "lamp's"]}
    classifies = metadata.said(model(**ULTRALYTICS | {"task": "classify"}))
    assert classifies.input() == {"labels": ["moth", "lamp's"]}
    assert metadata.said(model()).input() == {}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", "{0: 'moth', 2: 'lamp'}"),
        ("names", "{0: 'moth', 1: 7}"),
        ("names", "{}"),
        ("names", "__import__('os')"),
        ("names", "(" * 5000),
        ("names", "'" + "a" * metadata.LARGEST + "'"),
        ("imgsz", "[640]"),
        ("imgsz", "[0, 640]"),
        ("imgsz", "[True, True]"),
        ("imgsz", "640 640"),
    ],
)
def test_what_is_of_no_such_form_says_nothing(key: str, text: str) -> None:
    said = metadata.said(model(**ULTRALYTICS | {key: text}))
    assert getattr(said, {"names": "labels", "imgsz": "size"}[key]) is None


@given(st.dictionaries(st.sampled_from(["names", "imgsz", "stride", "task"]), st.text()))
def test_no_text_is_an_error(texts: dict[str, str]) -> None:
    metadata.said(model(**texts))


def test_a_graph_keeps_it_and_open_sides_are_the_size(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model("s", **ULTRALYTICS), path)
    graph = load_onnx(path, tmp_path / "out")
    assert graph.inputs[0].shape == (1, 3, 16, 24)
    assert graph.facts["input"]["labels"] == ["moth", "lamp's"]
    assert graph.facts["input"]["resize"] == "letterbox"


def test_a_size_that_is_not_the_inputs_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model(**ULTRALYTICS | {"imgsz": "[640, 640]"}), path)
    with caplog.at_level(logging.WARNING, "edgecv"):
        graph = load_onnx(path, tmp_path / "out")
    assert graph.inputs[0].shape == (1, 3, 16, 24)
    (record,) = caplog.records
    assert record.getMessage() == (
        "net.onnx: metadata says imgsz 640x640, the input is 16x24: that is taken"
    )
