"""What a bundle says of a picture, for every kind of task."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.errors import DataError, RecipeError
from edgecv.predicting.answers import Predictor, told
from edgecv.runtime import open_bundle
from edgecv.runtime.archive import read_bundle
from tests.predicting.bundles import BOXES

pytest.importorskip("onnxruntime")


def predictor(path: Path, **asked: Any) -> Predictor:
    return Predictor(read_bundle(path), **asked)


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_boxes_come_back_in_pixels_of_the_picture(bundles: dict[str, Path]) -> None:
    made = predictor(bundles["detection"])
    answer = made(np.full((128, 128, 3), 204, np.uint8))  # twice the input's size
    assert made.task == "detection"
    assert [p["label"] for p in answer.predictions] == ["moth", "lamp"]
    assert [p["score"] for p in answer.predictions] == pytest.approx([0.8, 0.4], abs=1e-5)
    for prediction, box in zip(answer.predictions, BOXES, strict=True):
        assert prediction["box"] == pytest.approx([2 * v for v in box], abs=1e-3)


def test_what_is_asked_reaches_the_task(bundles: dict[str, Path]) -> None:
    pixels = np.full((64, 64, 3), 204, np.uint8)
    assert len(predictor(bundles["detection"], confidence=0.5)(pixels).predictions) == 1
    assert len(predictor(bundles["detection"], max_detections=1)(pixels).predictions) == 1
    assert len(predictor(bundles["classification"], top=2)(pixels).predictions) == 2


def test_a_classifier_says_what_the_bundle_says(bundles: dict[str, Path]) -> None:
    answer = predictor(bundles["classification"])(noise())
    wanted = [p._asdict() for p in open_bundle(bundles["classification"])(noise())]
    assert answer.predictions == wanted


def test_a_network_without_a_task_says_its_outputs(bundles: dict[str, Path]) -> None:
    made = predictor(bundles["none"])
    answer = made(noise())
    values = open_bundle(bundles["none"])(noise())["scores"]
    (row,) = answer.predictions
    assert made.arrays
    assert (answer.read["scores"] == values).all()
    assert (row["output"], row["shape"], row["dtype"]) == ("scores", [1, 5], "float32")
    assert (row["min"], row["max"]) == (values.min(), values.max())


def test_a_map_has_the_size_of_the_picture(bundles: dict[str, Path]) -> None:
    pixels = np.zeros((128, 96, 3), np.uint8)
    pixels[:32, :, 1], pixels[32:, :, 2] = 255, 255
    made = predictor(bundles["segmentation"])
    answer = made(pixels)
    assert made.task == "segmentation"
    assert answer.read.map.shape == (128, 96)
    assert list(answer.predictions["share"]) == ["blue", "green"]
    assert answer.predictions["share"]["green"] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("task", ["detection", "segmentation", "classification", "none"])
def test_the_parts_add_up_to_the_whole(bundles: dict[str, Path], task: str) -> None:
    made, pixels = predictor(bundles[task]), noise(300, 400)
    made(pixels)
    begin = time.perf_counter()
    latency = made(pixels).latency_ms
    whole = 1e3 * (time.perf_counter() - begin)
    assert list(latency) == ["preprocess", "engine", "decode"]
    assert min(latency.values()) > 0
    assert sum(latency.values()) <= whole


@pytest.mark.parametrize(
    ("task", "asked"),
    [("classification", {"iou": 0.5}), ("none", {"top": 3}), ("detection", {"top": 3})],
)
def test_what_a_task_does_not_ask_is_refused(
    bundles: dict[str, Path], task: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match=f"means nothing to a bundle of task {task}"):
        predictor(bundles[task], **asked)


def test_what_takes_no_single_picture_is_refused(bundles: dict[str, Path]) -> None:
    contents = read_bundle(bundles["none"])
    contents.manifest["input"] = None
    with pytest.raises(DataError, match="not one picture"):
        Predictor(contents)


@pytest.mark.parametrize("task", ["detection", "segmentation", "classification"])
def test_an_answer_is_drawn_on_the_picture(bundles: dict[str, Path], task: str) -> None:
    made, pixels = predictor(bundles[task]), np.full((256, 256, 3), 204, np.uint8)
    drawn = made.drawn(pixels, made(pixels))
    assert drawn.shape == pixels.shape
    assert (drawn != pixels).any()
    assert (pixels == 204).all()


def test_answers_in_words() -> None:
    rows = [{"label": "cat", "score": s} for s in (0.5, 0.91)] + [{"label": "dog", "score": 0.8}]
    assert told(rows) == "2 cat 0.91, dog 0.80"
    assert told([]) == "nothing found"
    output = {"output": "y", "shape": [1, 5], "dtype": "float32", "min": -1.0, "max": 2.5}
    assert told([output, {"output": "z", "shape": [], "dtype": "bool", "not_finite": 1}]) == (
        "y 1x5 -1..2.5, z scalar (1 not finite)"
    )
    assert told({"classes": {"road": 0.5}}) == '{"classes": {"road": 0.5}}'
    assert told({"size": [4, 4], "share": {"road": 0.75, "sky": 0.25}}) == "road 75%, sky 25%"
    assert len(told([{"label": f"class {i}", "score": 0.5} for i in range(80)])) == 110
