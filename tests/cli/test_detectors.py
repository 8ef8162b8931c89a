"""`edgecv export` of a detector's file: what its metadata says is taken, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")
Image = pytest.importorskip("PIL.Image")

SIDE = 32
BOX = (4, 10, 20, 22)  # of the input, where a picture of 32x16 lies 8 pixels down
LAMP = 1  # the class that the network always finds


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """spots.onnx, that says in its metadata what its exporter knew, and val.json."""
    folder = tmp_path_factory.mktemp("detectors")
    onnx.save(_network(), folder / "spots.onnx")
    images, marks = [], []
    for n, level in enumerate((90, 150, 210)):
        Image.new("RGB", (SIDE, SIDE // 2), (level,) * 3).save(folder / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": SIDE // 2, "width": SIDE})
        marks.append({"id": n, "image_id": n, "category_id": 3, "bbox": [4, 2, 16, 12],
                      "area": 192, "iscrowd": 0})  # fmt: skip
    kinds = [{"id": 3, "name": "lamp"}, {"id": 7, "name": "moth"}]  # not in the network's order
    said = {"images": images, "annotations": marks, "categories": kinds}
    (folder / "val.json").write_text(json.dumps(said))
    return folder


def _network() -> onnx.ModelProto:
    """(1, 1, 6): always BOX, of class LAMP, as sure as the picture is bright."""
    from onnx import TensorProto, helper, numpy_helper

    values = {"box": [*BOX, 0, LAMP], "share": [0, 0, 0, 0, 1, 0]}
    constants = [numpy_helper.from_array(np.array([[row]], np.float32), name)
                 for name, row in values.items()]  # fmt: skip
    constants.append(numpy_helper.from_array(np.array([1, 1, 1]), "shape"))
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Reshape", ["mean", "shape"], ["bright"]),
        helper.make_node("Mul", ["bright", "share"], ["score"]),
        helper.make_node("Add", ["score", "box"], ["found"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("images", [1, 3, SIDE, SIDE]), ("found", [1, 1, 6]))]  # fmt: skip
    graph = helper.make_graph(nodes, "spots", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in {"task": "detect", "stride": "32", "imgsz": f"[{SIDE}, {SIDE}]",
                       "names": "{0: 'moth', 1: 'lamp'}"}.items():  # fmt: skip
        made.metadata_props.add(key=key, value=value)
    return made


COMMAND = ("export", "spots.onnx", "--task", "detection", "--decoder", "end2end",
           "--target", "cpu", "--json")  # fmt: skip


def test_labels_and_letterbox_are_the_files_own(
    edgecv: Callable, room: Path, tmp_path: Path
) -> None:
    done = edgecv(*COMMAND, "--evaluate", "coco:val.json", "--out", tmp_path, cwd=room)
    assert done.code == 0, done.err
    metric = json.loads(done.out)["metric"]
    assert metric["value"] == pytest.approx(1)  # 0 where boxes kept the classes of the set's order
    assert metric["per_class"] == {"moth": None, "lamp": pytest.approx(1)}
    from edgecv.runtime import open_bundle

    (bundle,) = tmp_path.glob("*.edgecv")
    (found,) = open_bundle(bundle)(np.full((SIDE // 2, SIDE, 3), 210, np.uint8))
    assert (found.label, found.box) == ("lamp", (4, 2, 20, 14))


def test_labels_that_are_not_the_sets_are_one_line(
    edgecv: Callable, room: Path, tmp_path: Path
) -> None:
    (tmp_path / "few.txt").write_text("moth\n")
    done = edgecv(*COMMAND, "--evaluate", "coco:val.json", "--labels", tmp_path / "few.txt",
                  "--out", tmp_path / "out", cwd=room)  # fmt: skip
    assert done.code == 2
    (line,) = [x for x in done.err.splitlines() if x.startswith("error:")]
    assert "class 'lamp' is no output of the network (it has 1; --labels FILE" in line
    assert not list(tmp_path.rglob("*.edgecv"))


@pytest.mark.parametrize("option", [{"resize": "stretch"}, {"pad_at": "corner"}])
def test_another_way_of_resizing_is_told(
    option: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    from edgecv.quick_export import Request
    from edgecv.quick_export.images import geometry

    known = {"resize": "letterbox", "pad_at": "centre", "pad_value": 114, "channels": 3}
    own = geometry(Request("spots.onnx", ("cpu",)), known)
    assert (own["resize"], own["pad_at"]) == ("letterbox", "centre")
    assert not caplog.records
    geometry(Request("spots.onnx", ("cpu",), **option), known)
    ((key, value),) = option.items()
    (record,) = caplog.records
    said = f"--{key.replace('_', '-')} {value} is asked for, the model says {known[key]}"
    assert record.getMessage() == f"spots.onnx: {said}: its answers may suffer"
