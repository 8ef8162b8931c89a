"""A decoder that fits the shapes of another's outputs is found out by what it reads; a right one is
believed, whatever it finds."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.errors import UnsupportedError
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection import DetectionTask
from edgecv.tasks.detection.plausible import LEAST_IMAGES, implausible

SIDE, CELLS = 352, 22
MAP = TensorSpec("758", "float32", (1, 85, CELLS, CELLS))
IMAGES = 8


def task(decoder: str, *outputs: TensorSpec) -> DetectionTask:
    return DetectionTask.of_graph(outputs or (MAP,), (SIDE, SIDE), None, {"decoder": decoder})


def maps(make, count: int = IMAGES) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"758": make(rng).astype(np.float32)} for _ in range(count)]


def fastestdet(rng: np.random.Generator) -> np.ndarray:
    """As FastestDet answers: objectness, sides in -1..1, a row of probabilities of which one class
    of some places is sure."""
    values = rng.uniform(0, 0.02, (1, 85, CELLS, CELLS))
    values[:, 1:5] = rng.uniform(-1, 1, (1, 4, CELLS, CELLS))
    sure = rng.random((1, CELLS, CELLS)) < 0.1
    values[:, 0][sure] = values[:, 70][sure] = 0.9
    return values


def yolov8(rng: np.random.Generator, share: float = 0.1, bins: int = 16) -> np.ndarray:
    """As a head of YOLOv8 answers: a bin of each side is sure, logits of classes."""
    values = rng.normal(-8, 1, (1, 85, CELLS, CELLS))
    chosen = rng.integers(0, bins, (4, CELLS, CELLS))
    for side in range(4):
        np.put_along_axis(values[0, 16 * side : 16 * side + 16], chosen[side][None], 8, 0)
    values[:, 70][rng.random((1, CELLS, CELLS)) < share] = 4
    return values


def test_another_decoders_map_is_refused_with_those_that_fit() -> None:
    read = task("yolov8")
    with pytest.raises(UnsupportedError, match=r"yolov8 reads .* boxes on 8 images, all some") as e:
        read.check_reads((MAP,), maps(fastestdet))
    assert "fastestdet" in e.value.hint
    assert "yolov8" not in e.value.hint
    assert "yolo11" not in e.value.hint
    task("fastestdet").check_reads((MAP,), maps(fastestdet))


def test_boxes_beside_the_image_are_refused() -> None:
    out = TensorSpec("y", "float32", (1, 84, CELLS * CELLS))
    read = DetectionTask.of_graph(
        (out,), (SIDE, SIDE), None, {"decoder": "yolov8", "strides": [16]}
    )
    rng = np.random.default_rng(0)
    images = []
    for _ in range(IMAGES):
        values = np.zeros((1, 84, CELLS * CELLS), np.float32)
        values[:, :2] = rng.uniform(2 * SIDE, 3 * SIDE, (1, 2, CELLS * CELLS))
        values[:, 2:4] = rng.uniform(9, 90, (1, 2, CELLS * CELLS))
        values[:, 4, :60] = 0.9
        images.append({"y": values})
    assert "middle outside the image" in implausible(read, images)
    for one in images:
        one["y"][:, :2] /= 3 * SIDE / 300
    assert implausible(read, images) == ""


@pytest.mark.parametrize(
    "make",
    [
        yolov8,
        lambda rng: yolov8(rng, share=0.001),  # few objects
        lambda rng: yolov8(rng, share=0),  # none
        lambda rng: yolov8(rng, bins=1),  # all alike, and small
        lambda rng: rng.normal(0, 0.1, (1, 85, CELLS, CELLS)),  # without training
    ],
)
def test_a_right_decoder_is_believed(make) -> None:
    assert implausible(task("yolov8"), maps(make)) == ""


def test_few_images_say_nothing() -> None:
    assert implausible(task("yolov8"), maps(fastestdet))
    assert implausible(task("yolov8"), maps(fastestdet, LEAST_IMAGES - 1)) == ""
    assert implausible(task("yolov8"), []) == ""
