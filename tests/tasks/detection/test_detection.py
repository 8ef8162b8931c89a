"""Reading a detector: from its outputs to boxes on the image as it was."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import tasks
from edgecv.errors import BundleError, RecipeError
from edgecv.runtime import Detection
from edgecv.runtime.placement import PLACES, Placement, place
from edgecv.runtime.preprocess import Preprocess
from edgecv.tasks.detection import DetectionTask, Found

INPUT = (64, 96)
TASK = DetectionTask(decoder="end2end", input=INPUT)
AS_IT_IS = Placement(INPUT, (0, 0), (1.0, 1.0))


def rows(*found) -> dict[str, np.ndarray]:
    """An end-to-end head's output of (x0, y0, x1, y1, score, class)."""
    return {"out": np.array(found, np.float32).reshape(1, -1, 6)}


def test_it_is_found_by_its_name() -> None:
    assert "detection" in tasks.names()
    assert tasks.task("detection") is DetectionTask


SIDES = st.integers(8, 500)


@settings(max_examples=100, deadline=None)
@given(
    SIDES, SIDES, st.tuples(st.integers(16, 128), st.integers(16, 128)),
    st.sampled_from(["crop", "stretch", "letterbox"]), st.sampled_from(PLACES),
    st.tuples(*[st.floats(0, 1)] * 4),
)  # fmt: skip
def test_boxes_come_back_to_where_they_were(h, w, size, resize, where, at) -> None:
    """To a hundredth of a pixel, for every way of resizing, where the network saw them."""
    h, w = min(h, 8 * w), min(w, 8 * h)
    lies = place(resize, (h, w), size, 0.875, where)
    x0, x1 = sorted(v * w for v in at[:2])
    y0, y1 = sorted(v * h for v in at[2:])
    (sy, sx), (oy, ox) = lies.scale, lies.offset
    head = rows((x0 * sx + ox, y0 * sy + oy, x1 * sx + ox, y1 * sy + oy, 0.9, 0))
    found = DetectionTask(decoder="end2end", input=size).read(head, lies, (h, w))
    if x1 - x0 > 0.1 and y1 - y0 > 0.1:
        np.testing.assert_allclose(found.boxes, [[x0, y0, x1, y1]], atol=0.01)


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (640, 480), (100, 37), (50, 75)])
@pytest.mark.parametrize("pad_at", PLACES)
def test_a_white_rectangle_is_found_where_it_was_painted(size, pad_at) -> None:
    """What preprocessing does to pixels is undone, to half a pixel of the coarser grid."""
    pre = Preprocess((96, 128), 1, (0,), (255,), resize="letterbox", pad_value=0, pad_at=pad_at,
                     interpolation="bilinear")  # fmt: skip
    (h, w), image = size, np.zeros((*size, 1), np.uint8)
    x0, y0, x1, y1 = w // 4, h // 5, w // 4 + w // 3, h // 5 + h // 2
    image[y0:y1, x0:x1] = 255
    white = pre(image)[0, 0]
    across, down = white.max(0), white.max(1)  # the share of each edge pixel tells where it ends
    ends = [e for line in (across, down) for e in (np.argmax(line > 0.5),
            len(line) - np.argmax(line[::-1] > 0.5))]  # fmt: skip
    head = rows((ends[0], ends[2], ends[1], ends[3], 0.9, 0))
    lies = pre.placement(h, w)
    found = DetectionTask(decoder="end2end", input=(96, 128)).read(head, lies, size)
    coarse = max(1.0, *(1 / s for s in lies.scale))
    np.testing.assert_allclose(found.boxes, [[x0, y0, x1, y1]], atol=0.5 * coarse + 1e-3)


def test_boxes_are_clipped_to_the_image_and_those_beside_it_are_none() -> None:
    head = rows((-5, -5, 200, 30, 0.9, 0), (0, 50, 96, 64, 0.8, 1), (10, 10, 10, 30, 0.7, 1))
    lies = place("letterbox", (80, 200), INPUT, 0.875, "corner")  # 38 of 64 rows are the image
    found = TASK.read(head, lies, (80, 200))
    assert found.boxes[:, [0, 1]].tolist() == [[0, 0]]
    assert found.boxes[0, 2] == 200


def test_a_box_of_swapped_corners_covers_no_other() -> None:
    """Its area is below 0: what overlaps with nothing was above a share of that."""
    task = DetectionTask(decoder="ultraface", input=INPUT, background=0)
    boxes = np.array([[[0.9, 0.1, 0.8, 0.2], [0.1, 0.1, 0.4, 0.9]]], np.float32)
    scores = np.array([[[0.1, 0.9], [0.2, 0.8]]], np.float32)
    found = task.read({"boxes": boxes, "scores": scores}, AS_IT_IS, INPUT)
    np.testing.assert_allclose(found.scores, [0.8])


def test_an_answer_is_sorted_detections_in_pixels() -> None:
    head = rows((1, 2, 30, 40, 0.5, 1), (5, 6, 50, 60, 0.75, 7))
    read = TASK.read(head, AS_IT_IS, INPUT)
    answer = TASK.answer(read, ("cat", "dog"))
    assert answer == [
        Detection(7, "7", 0.75, (5.0, 6.0, 50.0, 60.0)),
        Detection(1, "dog", 0.5, (1.0, 2.0, 30.0, 40.0)),
    ]
    assert type(answer[0].index) is int
    assert type(answer[0].score) is float
    told = json.loads(json.dumps(TASK.to_json(read, ("cat", "dog"))))
    assert told[1] == {"index": 1, "label": "dog", "score": 0.5, "box": [1.0, 2.0, 30.0, 40.0]}


def test_nothing_found_is_an_empty_answer() -> None:
    read = TASK.read(rows((1, 2, 30, 40, 0.1, 1)), AS_IT_IS, INPUT)
    assert read.boxes.shape == (0, 4)
    assert TASK.answer(read, ()) == TASK.to_json(read, ()) == []


def yolox_head() -> np.ndarray:
    """(1, 126, 7) of a 64 x 96 input: two boxes of each of two classes at nearly one place."""
    head = np.zeros((1, 126, 7), np.float32)
    for k, (objectness, cat, dog) in enumerate([(0.9, 1, 0), (0.8, 1, 0), (0.7, 0, 1)]):
        head[0, k] = [30 - 8 * k, 30, np.log(4), np.log(4), objectness, cat, dog]
        head[0, k, :2] = [2 - k, 2]  # the cell's own place is added: all at column 2, row 2
    return head


def test_what_a_call_asks_wins_over_what_is_deployed() -> None:
    task = DetectionTask(decoder="yolox", input=INPUT, strides=(8, 16, 32), decoded=False)
    head = {"out": yolox_head()}

    def scores(**asked):
        found = task.read(head, AS_IT_IS, INPUT, **asked).scores
        return [round(v, 3) for v in found.tolist()]

    assert scores() == [0.9, 0.7]
    assert scores(agnostic=True) == [0.9]
    assert scores(iou=1.0) == [0.9, 0.8, 0.7]
    assert scores(confidence=0.8) == [0.9]
    assert scores(max_detections=1) == [0.9]
    assert scores(confidence=None, iou=None, max_detections=None) == [0.9, 0.7]
    for wrong in ({"confidence": 1.5}, {"iou": -0.1}, {"max_detections": 0}, {"iou": "half"},
                  {"confidence": np.nan}, {"max_detections": 2.5}):  # fmt: skip
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            scores(**wrong)
    with pytest.raises(TypeError, match="threshold"):
        scores(threshold=0.5)


def test_judging_asks_for_nearly_everything() -> None:
    yolox = DetectionTask(decoder="yolox", input=INPUT, strides=(8,))
    assert yolox.judging() == {"confidence": 0.001, "max_detections": 300, "every_class": False}
    assert DetectionTask(decoder="yolov8", input=INPUT).judging()["every_class"]
    deformable = DetectionTask(decoder="detr", input=INPUT)
    assert deformable.judging()["every_class"]
    assert not DetectionTask(decoder="detr", input=INPUT, background=-1).judging()["every_class"]
    assert DetectionTask(decoder="ssd", input=INPUT, background=-1).judging()["every_class"]


@pytest.mark.parametrize("column", [0, 2, 4, 5])
@pytest.mark.parametrize("every_class", [False, True])
def test_rows_that_say_nan_are_dropped_and_counted(column: int, every_class: bool) -> None:
    task = DetectionTask(decoder="yolox", input=INPUT, strides=(8, 16, 32), decoded=False)
    head = yolox_head()
    head[0, 0, column] = np.nan
    found = task.read({"out": head}, AS_IT_IS, INPUT, every_class=every_class, confidence=0.1)
    assert found.nan == 1
    np.testing.assert_allclose(found.scores, [0.8, 0.7], rtol=1e-6)
    assert np.isfinite(found.boxes).all()


DECODERS = {
    "yolox": ({"strides": (8, 16, 32)}, [(1, 126, 8)]),
    "yolov5": ({"strides": (8, 16, 32)}, [(1, 378, 8)]),
    "yolov8": ({"strides": (8, 16, 32)}, [(1, 7, 126)]),
    "fastestdet": ({"strides": (16,)}, [(1, 8, 4, 6)]),
    "centernet": ({"strides": (8,)}, [(1, 3, 8, 12), (1, 2, 8, 12), (1, 2, 8, 12)]),
    "ssd": (
        {"strides": (8,), "anchors": (((9, 9), (20, 20)),), "background": 0},
        [(1, 192, 4), (1, 192, 4)],
    ),
    "retinaface": (
        {"strides": (8,), "anchors": (((9, 9), (20, 20)),), "background": 0},
        [(1, 192, 4), (1, 192, 2), (1, 192, 10)],
    ),
    "ultraface": ({"background": 0}, [(1, 50, 4), (1, 50, 2)]),
    "detr": ({"background": -1}, [(1, 50, 4), (1, 50, 4)]),
    "end2end": ({}, [(1, 50, 6)]),
    "suppressed": ({}, [(1, 50, 4), (1, 50), (1, 50)]),
}


@pytest.mark.parametrize("decoder", list(DECODERS))
@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([1.0, 1e3, 1e30]), st.booleans(),
    st.sampled_from([0.0, 0.05, 1.0]),
)  # fmt: skip
def test_whatever_a_head_says_an_answer_is_sound(
    decoder, seed, confidence, scale, every_class, broken
) -> None:
    """Among the values are NaN and infinities: no exception, no warning, no box off the image."""
    fields, shapes = DECODERS[decoder]
    rng = np.random.default_rng(seed)
    outputs = {}
    for k, shape in enumerate(shapes):
        values = (rng.normal(0, scale, shape)).astype(np.float32)
        at = rng.uniform(0, 1, shape) < broken
        values[at] = rng.choice([np.nan, np.inf, -np.inf], at.sum())
        outputs[str(k)] = values
    task = DetectionTask(decoder=decoder, input=INPUT, **fields)
    lies = place("letterbox", (300, 200), INPUT, 0.875, "centre")
    found = task.read(outputs, lies, (300, 200), confidence=confidence, every_class=every_class)
    assert isinstance(found, Found)
    assert len(found.boxes) == len(found.scores) == len(found.index) <= 100
    assert np.isfinite(found.boxes).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [200, 300, 200, 300]).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
    assert (found.scores >= np.float32(confidence)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.index.dtype == np.int64
    json.dumps(task.to_json(found, ()), allow_nan=False)


@pytest.mark.parametrize("decoder", list(DECODERS))
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_manifest_of_other_outputs_is_an_error_of_ours(decoder: str, data: st.DataObject) -> None:
    """Whatever it says: one typed error or an answer, and no memory for places that are not."""
    _, shapes = DECODERS[decoder]
    sizes = st.sampled_from([1, 7, 64, 65536])
    strides = st.lists(st.sampled_from([0.001, 1, 8, 16, 65536]), max_size=3)
    said = {
        "decoder": data.draw(st.sampled_from(list(DECODERS))),
        "input": data.draw(st.tuples(sizes, sizes)),
        "strides": data.draw(strides),
        "outputs": data.draw(st.lists(st.sampled_from("0123"), max_size=3)),
        "background": data.draw(st.sampled_from([None, 0, -1])),
    }
    said["anchors"] = [[[8, 8]] * data.draw(st.integers(1, 3))] * len(said["strides"])
    outputs = {
        str(k): np.random.default_rng(k).normal(0, 1, shape).astype(np.float32)
        for k, shape in enumerate(shapes)
    }
    lies = place("letterbox", (300, 200), INPUT, 0.875, "centre")
    with contextlib.suppress(BundleError):
        assert isinstance(DetectionTask.of(said).read(outputs, lies, (300, 200)), Found)


def test_a_word_that_a_terminal_would_obey_is_shown_escaped() -> None:
    with pytest.raises(ValueError, match=r"decode\.'\\x1b\[31m' is none of"):
        DetectionTask.of({"\x1b[31m": 1})


def test_the_error_names_the_shapes() -> None:
    task = DetectionTask(decoder="yolox", input=(416, 416), strides=(8, 16, 32), decoded=False)
    with pytest.raises(BundleError, match=r"yolox does not read out \(1, 126, 7\): 126 rows"):
        task.read({"out": yolox_head()}, AS_IT_IS, INPUT)


def test_landmarks_move_with_their_boxes() -> None:
    fields, _ = DECODERS["retinaface"]
    task = DetectionTask(decoder="retinaface", input=INPUT, **fields)
    scores = np.zeros((1, 192, 2), np.float32)
    scores[..., 0], scores[0, 50] = 1, [0.1, 0.9]
    zeros = {"a": np.zeros((1, 192, 4), np.float32), "b": scores,
             "c": np.zeros((1, 192, 10), np.float32)}  # fmt: skip
    lies = Placement((32, 48), (8, 16), (0.5, 0.5))
    found = task.read(zeros, lies, (64, 96))
    middle = np.array([(25 % 12 + 0.5) * 8, (25 // 12 + 0.5) * 8])
    expected = (middle - [16, 8]) / 0.5
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks, np.tile(expected, (1, 5, 1)), rtol=1e-5)
    assert TASK.answer(found, ("face",))[0].label == "face"
    assert task.to_json(found, ("face",))[0]["landmarks"] == found.landmarks[0].tolist()


def test_a_manifest_holds_it() -> None:
    said = {"decoder": "yolox", "input": [416, 416], "strides": [8, 16, 32], "confidence": 0.4}
    task = DetectionTask.of(said)
    assert json.loads(json.dumps(task.described())) == said
    assert DetectionTask.of(json.loads(json.dumps(task.described()))) == task
    for wrong in ({}, said | {"size": 3}, said | {"iou": 7}, said | {"input": 416}):
        with pytest.raises(ValueError, match="decode"):
            DetectionTask.of(wrong)


@pytest.mark.parametrize("first", ["edgecv.tasks.detection", "edgecv.tasks.base", "edgecv.runtime"])
def test_a_device_imports_it_with_numpy_alone(first: str) -> None:
    """In a process of its own, and whichever package is asked for first."""
    code = f"""
import sys
for name in ("torch", "PIL", "pydantic", "onnx", "pycocotools"): sys.modules[name] = None
import {first}
import edgecv.tasks.detection
print(*(m for m in sys.modules if m.startswith("edgecv.methods")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
