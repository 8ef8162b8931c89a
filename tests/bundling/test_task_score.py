"""What is said beside a metric: answers that are no numbers, and figures that mean a mistake."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycocotools")
from edgecv.bundling import task_score
from edgecv.data.annotations import Boxes, Maps, PictureBoxes
from edgecv.data.images import Images
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.base import NotNumbers
from edgecv.tasks.detection import DetectionTask, Found
from edgecv.tasks.segmentation import SegmentationTask

SIZE = 32
BOX = (4.0, 4.0, 20.0, 20.0)


class Spots:
    """An engine's session: one box on every picture, NaN as its score where that is black."""

    inputs = (TensorSpec("image", "float32", (1, 3, SIZE, SIZE), "NCHW"),)
    outputs = (TensorSpec("found", "float32", (1, 1, 6)),)

    def __init__(self, index: int) -> None:
        self.index = index

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bright = float(feeds["image"].mean())
        score = 0.9 if bright else np.nan
        return {"found": np.array([[[*BOX, score, self.index]]], np.float32)}


def judged(index: int, levels: list[int]) -> tuple[dict, list[str]]:
    pixels = np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in levels])
    one = PictureBoxes(np.array([BOX], np.float32), np.array([0]), np.array([False]),
                       np.array([256], np.float32))  # fmt: skip
    truth = Boxes.of([one] * len(levels), np.full((len(levels), 2), SIZE))
    images = Images(pixels, np.zeros(len(levels), np.int64), ("moth", "lamp"), truth=truth)
    task = DetectionTask(decoder="end2end", input=(SIZE, SIZE))
    preprocess = Preprocess((SIZE, SIZE), 3, (0.0,), (255.0,), resize="none")
    metric, _, doubts = task_score.judge(task, Spots(index), Spots.outputs, images, preprocess)
    return metric, doubts


def test_answers_that_are_no_numbers_are_counted() -> None:
    metric, doubts = judged(0, [255, 0, 128, 0])
    assert metric["value"] == pytest.approx(51 / 101)  # half of them are found
    assert doubts == ["the network says NaN in 2 of 4 images: 2 of its answers are left out"]


def test_a_network_of_numbers_has_nothing_said() -> None:
    metric, doubts = judged(0, [255, 128])
    assert (metric["value"], doubts) == (pytest.approx(1), [])


def test_next_to_nothing_is_asked_about() -> None:
    metric, doubts = judged(1, [255, 128])  # all right, but for the order of the labels
    assert metric["value"] == 0
    (doubt,) = doubts
    assert doubt.startswith("mAP 0.00: ")
    assert "labels in the outputs' order" in doubt


def test_counting_changes_nothing_that_passes() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    reads = [Found(*none), Found(*none, nan=3), {"output": np.zeros(2)}]
    lost = NotNumbers()
    assert list(lost.watch(reads)) == reads
    assert lost == NotNumbers(images=1, of=3, answers=3)
    assert NotNumbers(of=2).sentence() == ""


class ChannelsLast:
    """An engine that answers a map with its channels last: what is bright is of class 1."""

    inputs = Spots.inputs
    outputs = (TensorSpec("map", "float32", (1, SIZE, SIZE, 3), "NHWC"),)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bright = feeds["image"][:, 0] > 0.5
        of_class = [~bright, bright, np.zeros_like(bright)]
        return {"map": np.stack(of_class, -1).astype(np.float32)}


def test_a_map_of_channels_last_is_read_as_on_the_device() -> None:
    pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    pixels[0, 3:9], pixels[1, :, 20:] = 255, 255
    truth = Maps.of([(image[..., 0] > 128).astype(np.uint8) for image in pixels])
    images = Images(pixels, np.zeros(2, np.int64), ("dark", "bright", "none"), truth=truth)
    task = SegmentationTask(input=(SIZE, SIZE))
    preprocess = Preprocess((SIZE, SIZE), 3, (0.0,), (255.0,), resize="none")
    session = ChannelsLast()
    metric, _, _ = task_score.judge(task, session, session.outputs, images, preprocess)
    assert metric["value"] == 1.0
