"""`--nms graph`: the bundle whose file suppresses answers as the one whose runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import quick_export, reading_graph
from edgecv.diagnosis.parity import compare
from edgecv.errors import ParityError, TargetError, UnsupportedError
from edgecv.plan import recipe
from edgecv.runtime import open_bundle
from edgecv.runtime.verify import verify
from edgecv.tasks.detection import DetectionTask

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE, C = 64, 3
TASK = {"decoder": "yolox", "strides": (8,), "confidence": 0.3, "max_detections": 30}


def network(path: Path, channels: int = 5 + C) -> Path:
    """One convolution, a map of stride 8 as YOLOX has it, sure enough of some cells."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.05, (channels, 3, 8, 8)).astype(np.float32)
    weight[2:4] *= 0.1
    bias = np.zeros(channels, np.float32)
    bias[2:4] = 1.0
    held = [numpy_helper.from_array(v, n) for n, v in (("w", weight), ("b", bias))]
    node = helper.make_node("Conv", ["image", "w", "b"], ["map"], strides=[8, 8])
    ends = [("image", [1, 3, SIDE, SIDE]), ("map", [1, channels, SIDE // 8, SIDE // 8])]
    tensors = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in ends]
    graph = helper.make_graph([node], "net", *tensors, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading")
    network(folder / "net.onnx")
    (folder / "images").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 70, 3), dtype=np.uint8)
        np.save(folder / "images" / f"{i}.npy", pixels)
    return folder


def made(room: Path, out: Path, target: str, precision: str, nms: str) -> quick_export.Exported:
    request = quick_export.Request(
        str(room / "net.onnx"), (target,), precision, calibration=room / "images",
        task="detection", decode={**TASK, "nms": nms}, resize="letterbox", mean=(127.0,),
        std=(64.0,),
    )  # fmt: skip
    (found,) = quick_export.export(request, out / nms, store=out / "store").values()
    assert isinstance(found, quick_export.Exported)
    return found


@pytest.mark.parametrize(
    ("target", "precision"), [("cpu", "fp32"), ("cpu", "int8"), ("openvino", "fp32")]
)
def test_its_boxes_are_the_runtimes(room: Path, tmp_path: Path, target, precision) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    graph = made(room, tmp_path, target, precision, "graph")
    plain = made(room, tmp_path, target, precision, "runtime")
    assert any(n.startswith("the file itself suppresses: of ") for n in graph.facts.notes)
    a, b = open_bundle(graph.bundle), open_bundle(plain.bundle)
    assert a.manifest["decode"]["decoder"] == "suppressed"
    assert [tuple(s.shape) for s in a.outputs] == [(1, 30, 4), (1, 30), (1, 30)]
    assert [f.name for f in graph.files] == [
        f.name.replace("runtime", "graph") for f in plain.files
    ]
    count = 0
    for i in range(12):
        image = np.load(room / "images" / f"{i}.npy")
        for asked in ({}, {"confidence": 0.5}, {"max_detections": 3}):
            x, y = a.read(image, **asked)[0], b.read(image, **asked)[0]
            assert x.index.tolist() == y.index.tolist()
            np.testing.assert_allclose(x.scores, y.scores, atol=1e-5)
            np.testing.assert_allclose(x.boxes, y.boxes, atol=1e-2)
            count += len(x.scores)
    assert count > 50
    assert verify(graph.bundle).ok
    assert not list(tmp_path.rglob("reading"))
    if (target, precision) == ("cpu", "fp32"):
        job = {"bundle": str(graph.bundle), "against": str(room / "net.onnx"),
               "images": str(room / "images"), "samples": 4}  # fmt: skip
        with pytest.raises(UnsupportedError, match="suppresses its own boxes"):
            compare.work(job)


def test_targets_that_cannot_hold_it_are_refused_at_once(room: Path, tmp_path: Path) -> None:
    for target in ("tflite", "edgetpu", "c"):
        with pytest.raises(TargetError, match="hold no suppression that is the runtime's") as e:
            made(room, tmp_path, target, "fp32" if target != "edgetpu" else "int8", "graph")
        assert target in e.value.where
        assert "cpu" in e.value.hint
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {room / 'net.onnx'}\ntask: {{name: detection, decoder: yolox, nms: graph}}\n"
        f"data: {{images: {room / 'images'}}}\nstages: [export]\ntargets: [cpu, c]\n"
    )
    with pytest.raises(TargetError, match="target 'c'"):
        recipe.load(path)
    assert recipe.load(path, targets=["cpu"]).decode["nms"] == "graph"


def test_a_head_without_nodes_is_refused(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx", 6)
    request = quick_export.Request(
        str(tmp_path / "net.onnx"), ("cpu",), "fp32", task="detection",
        decode={"decoder": "centernet", "nms": "graph", "outputs": ["map"]},
    )  # fmt: skip
    with pytest.raises(UnsupportedError):
        quick_export.export(request, tmp_path / "out")
    assert not list(tmp_path.rglob("*.edgecv"))


def one_box(answer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An answer with one sure box in it."""
    rows = answer["rows"].copy()
    rows[0, 0] = [0, 0, 1, 1, 9, 9, -9, -9]
    return {"rows": rows}


def test_other_boxes_are_an_error() -> None:
    rng = np.random.default_rng(0)
    raw = [{"rows": rng.normal(0, 2, (1, 64, 5 + C)).astype(np.float32)} for _ in range(3)]
    task = DetectionTask(decoder="yolox", input=(SIDE, SIDE), strides=(8,), decoded=False,
                         activation="sigmoid")  # fmt: skip
    same = reading_graph.compared("net", task, raw, task, raw, (SIDE, SIDE))
    assert "boxes on 3 images" in same
    none = [{"rows": np.full_like(r["rows"], -20)} for r in raw]
    told = reading_graph.compared("net", task, none, task, none, (SIDE, SIDE))
    assert "nothing was compared" in told
    with pytest.raises(ParityError, match="boxes are not the runtime's"):  # of few, none is lost
        reading_graph.compared("net", task, none[:1], task, [one_box(none[0])], (SIDE, SIDE))
    wrong = [{"rows": r["rows"] + np.eye(8, dtype=np.float32)[0]} for r in raw]
    with pytest.raises(ParityError, match="boxes are not the runtime's"):
        reading_graph.compared("net", task, raw, task, wrong, (SIDE, SIDE))
