"""Boxes suppressed in the file are those that the runtime suppresses, in its order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import UnsupportedError
from edgecv.runtime.placement import Placement
from edgecv.tasks.detection import DetectionTask, in_graph, published

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIZE, STRIDES, C = (64, 96), (8, 16, 32), 3
N = 8 * 12 + 4 * 6 + 2 * 3
LIES = Placement(SIZE, (0, 0), (1.0, 1.0))
ANCHORS = tuple(((20.0 * k, 20.0 * k), (30.0 * k, 15.0 * k)) for k in (1, 2, 3))


def maps(channels: int, *more: int) -> list[tuple[int, ...]]:
    return [(1, c, 64 // s, 96 // s) for s in STRIDES for c in (channels, *more)]


# decoder, shapes, fields; whether scores are raw
HEADS = {
    "yolox": ("yolox", [(1, N, 5 + C)], {"decoded": False}),
    "yolox maps": ("yolox", maps(5 + C), {"decoded": False}),
    "yolox decoded": ("yolox", [(1, N, 5 + C)], {"decoded": True}),
    "yolov5": ("yolov5", [(1, 3 * N, 5 + C)], {"unit": "relative"}),
    "yolov5 maps": ("yolov5", maps(3 * (5 + C)), {"anchors": published.YOLOV5[0].anchors}),
    "yolov5 five axes": (
        "yolov5", [(1, 3, 64 // s, 96 // s, 5 + C) for s in STRIDES],
        {"anchors": published.YOLOV5[0].anchors},
    ),
    "yolov8": ("yolov8", [(1, 4 + C, N)], {"unit": "pixels"}),
    "yolov8 upright": ("yolov8", [(1, N, 4 + C)], {"form": "xyxy", "unit": "pixels"}),
    "yolov8 maps": ("yolov8", maps(64 + C), {}),
    "yolo11 apart": ("yolo11", maps(64, C), {}),
    "fastestdet": ("fastestdet", [(1, 5 + C, 4, 6)], {"strides": (16,)}),
    "ssd": ("ssd", [(1, 2 * N, 4), (1, 2 * N, 1 + C)], {"anchors": ANCHORS, "background": 0}),
    "ssd of tensorflow": (
        "ssd", [(1, 9, 4), (1, 9, 1 + C)],
        {"priors": tuple((0.1 * k, 0.1 * k, 0.3, 0.2) for k in range(9)), "form": "cycxhw",
         "background": -1, "strides": ()},
    ),
    "ultraface": ("ultraface", [(1, 60, 4), (1, 60, 2)], {"background": 0, "strides": ()}),
}  # fmt: skip


def identity(shapes, opset: int = 18):
    from onnx import TensorProto, helper

    def ends(word: str):
        return [
            helper.make_tensor_value_info(f"{word}{i}", TensorProto.FLOAT, s)
            for i, s in enumerate(shapes)
        ]

    nodes = [helper.make_node("Identity", [f"x{i}"], [f"y{i}"]) for i in range(len(shapes))]
    graph = helper.make_graph(nodes, "g", ends("x"), ends("y"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ran(model, arrays) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {f"x{i}": a for i, a in enumerate(arrays)})
    return dict(zip((o.name for o in session.get_outputs()), found, strict=True))


def values(shapes, decoder: str, seed: int, coarse: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, 1.5, s).astype(np.float32) for s in shapes]
    if coarse:  # as an integer grid gives them: many equal scores
        arrays = [np.round(a * 2) / 2 for a in arrays]
    if decoder == "fastestdet":
        arrays = [1 / (1 + np.exp(-a)) for a in arrays]
    if decoder == "ultraface":
        arrays[0] = np.sort(rng.uniform(0, 1, (1, 60, 2, 2)), 2).reshape(1, 60, 4)
    if decoder == "yolov8 upright":
        arrays[0][..., 2:4] = arrays[0][..., :2] + np.abs(arrays[0][..., 2:4]) + 1
    elif decoder in ("yolov5", "yolov8"):
        sizes = arrays[0][..., 2:4] if decoder == "yolov5" else arrays[0][:, 2:4]
        sizes[...] = np.abs(sizes) + 1
    if decoder == "yolox decoded":
        arrays[0][..., :4] = rng.uniform(5, 60, (1, N, 4))
    return [a.astype(np.float32) for a in arrays]


def same(word: str, task: DetectionTask, arrays, opset: int = 18) -> int:
    model = identity([a.shape for a in arrays], opset)
    answers = {f"y{i}": a for i, a in enumerate(arrays)}
    read = in_graph.attached(model, [answers], task)
    wanted = task.read(answers, LIES, SIZE)
    outputs = ran(model, arrays)
    assert {n: v.shape for n, v in outputs.items()} == {
        "boxes": (1, task.max_detections, 4), "scores": (1, task.max_detections),
        "classes": (1, task.max_detections),
    }  # fmt: skip
    assert read.decoder == "suppressed"
    assert DetectionTask.of(read.described()) == read
    found = read.read(outputs, LIES, SIZE)
    assert found.index.tolist() == wanted.index.tolist(), word
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-4, atol=1e-3)
    return len(wanted.scores)


def of(word: str, **fields) -> DetectionTask:
    decoder, _, own = HEADS[word]
    return DetectionTask(**{"decoder": decoder, "input": SIZE, "strides": STRIDES, **own, **fields})


@pytest.mark.parametrize("word", HEADS)
def test_boxes_and_scores_are_the_runtimes(word: str) -> None:
    shapes = HEADS[word][1]
    least = 0.6 if word in ("ssd", "ultraface") else 0.3
    for seed, more in enumerate((
        {}, {"agnostic": True}, {"max_detections": 5}, {"iou": 0.0}, {"confidence": 1.0},
        {"confidence": 0.0, "max_detections": 400},
    )):  # fmt: skip
        task = of(word, **{"confidence": least, "nms": "graph", **more})
        kept = same(word, task, values(shapes, word, seed))
        assert kept or more.get("confidence") == 1.0
    coarse = replace(task, confidence=0.2, max_detections=20)
    same(word, coarse, values(shapes, word, 7, coarse=word not in ("fastestdet", "ultraface")))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), iou=st.floats(0, 1), confidence=st.floats(0, 1),
    most=st.integers(1, 40), agnostic=st.booleans(), nan=st.floats(0, 0.2),
)  # fmt: skip
def test_any_thresholds_and_rows_of_nan(seed, iou, confidence, most, agnostic, nan) -> None:
    arrays = values([(1, N, 5 + C)], "yolox", seed)
    lost = np.random.default_rng(seed).random(arrays[0].shape) < nan / C
    arrays[0][lost] = np.nan
    task = of("yolox", iou=float(np.float32(iou)), confidence=float(np.float32(confidence)),
              max_detections=most, agnostic=agnostic, activation="sigmoid")  # fmt: skip
    same("yolox", task, arrays)


def test_boxes_of_swapped_corners_are_none() -> None:
    rows = values([(1, 3 * N, 5 + C)], "yolov5", 1)[0]
    rows[0, ::2, 2] *= -1
    assert same("yolov5", of("yolov5"), [rows])


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_opsets(opset: int) -> None:
    assert same("yolox", of("yolox"), values([(1, N, 5 + C)], "yolox", 0), opset)


def test_what_cannot_be_is_refused() -> None:
    model = identity([(1, 5, 6)])
    with pytest.raises(UnsupportedError, match="end2end has no nodes"):
        in_graph.attached(model, [{"y0": np.zeros((1, 5, 6))}], of("yolox", decoder="end2end"))
    rows = values([(1, N, 5 + C)], "yolox", 0)[0]
    with pytest.raises(UnsupportedError, match="opset 11"):
        in_graph.attached(identity([rows.shape], 11), [{"y0": rows}], of("yolox"))
    decoded = np.abs(rows) / 100 + np.array([40, 40, 9, 9, 0, 0, 0, 0], np.float32)
    with pytest.raises(UnsupportedError, match=r"decoded False.* or .*decoded True"):
        in_graph.attached(
            identity([rows.shape]), [{"y0": rows}, {"y0": decoded}], of("yolox", decoded=None)
        )
