"""mAP is pycocotools' to the digit, of any multiset of the images."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.data.annotations import Boxes, PictureBoxes
from edgecv.errors import DataError
from edgecv.tasks import paired
from edgecv.tasks.detection import DetectionTask, Found, metric

pytest.importorskip("pycocotools")
TASK: Any = SimpleNamespace(confidence=0.4)
CLASSES = ("a", "b", "c", "never")


def world(
    seed: int, images: int = 12, skill: float = 0.8, ties: bool = True
) -> tuple[Boxes, list[Found]]:
    """Boxes of three classes and sizes from 8 to 200 pixels, and what a detector might find."""
    rng = np.random.default_rng(seed)
    truths, reads = [], []
    for _ in range(images):
        m, f = rng.integers(0, 6), rng.integers(0, 8)
        sides = np.exp(rng.uniform(2, 5.3, (m, 2)))
        corner = rng.uniform(0, 300, (m, 2))
        boxes = np.hstack([corner, corner + sides]).astype(np.float32)
        index, crowd = rng.integers(0, 3, m), rng.random(m) < 0.15
        area = (sides.prod(1) * rng.uniform(0.5, 1, m)).astype(np.float32)
        truths.append(PictureBoxes(boxes, index, crowd, area))
        hit = rng.random(m) < skill
        moved = boxes[hit] + np.tile(sides[hit], 2) * rng.normal(0, 0.06, (hit.sum(), 4))
        wrong = rng.uniform(0, 300, (f, 2))
        said = np.vstack([moved, moved[:1], np.hstack([wrong, wrong + 30])]).astype(np.float32)
        scores = rng.uniform(0, 1, len(said)).astype(np.float32)
        scores = scores.round(1) if ties else scores
        of = np.concatenate([index[hit], index[hit][:1], rng.integers(0, 4, f)])
        order = np.argsort(-scores, kind="stable")
        reads.append(Found(said[order], scores[order], of[order]))
    return Boxes.of(truths, np.full((images, 2), 500)), reads


def theirs(truth: Boxes, reads: list[Found], images: list[int]) -> np.ndarray:
    """The twelve figures of a script that asks pycocotools itself; images may come repeatedly."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true, said = [], []
    for place, i in enumerate(images, 1):
        own, read = truth[i], reads[i]
        for box, k, crowd, area in zip(own.boxes, own.index, own.crowd, own.area, strict=True):
            x0, y0, x1, y1 = map(float, box)
            true.append({"id": len(true) + 1, "image_id": place, "category_id": int(k) + 1,
                         "iscrowd": int(crowd), "area": float(area),
                         "bbox": [x0, y0, x1 - x0, y1 - y0]})  # fmt: skip
        for box, k, score in zip(read.boxes, read.index, read.scores, strict=True):
            x0, y0, x1, y1 = map(float, box)
            said.append({"image_id": place, "category_id": int(k) + 1, "score": float(score),
                         "bbox": [x0, y0, x1 - x0, y1 - y0]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {"images": [{"id": i + 1} for i in range(len(images))], "annotations": true,
                      "categories": [{"id": k + 1} for k in range(len(CLASSES))]}  # fmt: skip
        gt.createIndex()
        judged = COCOeval(gt, gt.loadRes(said), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged.stats


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth, reads = world(seed)
    score = metric.score(iter(reads), truth, CLASSES, TASK)
    stats = theirs(truth, reads, list(range(12)))
    names = ("ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert (score.value, score.samples) == (stats[0], 12)
    assert {k: score.more[k] for k in names if k in score.more} == {
        k: v for k, v in zip(names, stats[1:6], strict=True) if v >= 0}  # fmt: skip
    own = [v for v in score.per_class.values() if v is not None]
    assert np.mean(own) == pytest.approx(score.value, abs=1e-12)
    assert score.per_class["never"] is None
    assert capsys.readouterr().out == ""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 50), times=st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_any_multiset_of_the_images(seed: int, times: list[int]) -> None:
    truth, reads = world(seed, ties=False)
    score = metric.score(reads, truth, CLASSES, TASK)
    weights = np.array([times, [1] * 12]).T
    value, whole = metric.value_of(score.parts, weights)
    assert whole == pytest.approx(score.value, abs=1e-12)
    images = [i for i, n in enumerate(times) for _ in range(n)]
    if any((~truth[i].crowd).any() for i in images) and any(len(reads[i].boxes) for i in images):
        assert value == pytest.approx(theirs(truth, reads, images)[0], abs=1e-9)


def test_precision_and_recall_at_the_deployed_confidence() -> None:
    """Two objects: one found surely and once more, one found below the confidence; and a guess."""
    boxes = np.array([[0, 0, 50, 50], [100, 100, 200, 200]], np.float32)
    own = PictureBoxes(boxes, np.array([0, 1]), np.zeros(2, bool), np.array([2500.0, 10000.0]))
    said = np.array([[0, 0, 50, 45], [0, 0, 50, 50], [100, 100, 200, 200], [300, 300, 310, 310]])
    read = Found(said.astype(np.float32), np.array([0.9, 0.8, 0.3, 0.7]), np.array([0, 0, 1, 3]))
    truth = Boxes.of([own], np.array([[500, 500]]))
    score = metric.score([read], truth, CLASSES, TASK)
    assert (score.more["precision"], score.more["recall"]) == (1 / 3, 1 / 2)
    sure: Any = SimpleNamespace(confidence=0.95)
    score = metric.score([read], truth, CLASSES, sure)
    assert (score.more["precision"], score.more["recall"]) == (0.0, 0.0)


def test_there_must_be_something_to_judge_by() -> None:
    truth, reads = world(0)
    with pytest.raises(DataError, match="11 answers for 12 images"):
        metric.score(reads[1:], truth, CLASSES, TASK)
    none = PictureBoxes(
        np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), np.zeros(0)
    )
    with pytest.raises(DataError, match="no image has a box"):
        metric.score(reads[:1], Boxes.of([none], np.array([[5, 5]])), CLASSES, TASK)


def test_a_detector_that_finds_nothing() -> None:
    truth, reads = world(3)
    empty = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    score = metric.score([empty] * 12, truth, CLASSES, TASK)
    assert (score.value, score.more["recall"]) == (0.0, 0.0)
    full = metric.score(reads, truth, CLASSES, TASK)
    found = metric.difference(full.parts, score.parts, 0.05)
    assert found.drop == pytest.approx(full.value)
    assert found.p < 0.01
    assert found.bounds[0] > 0


def test_a_network_against_itself_and_a_worse_one() -> None:
    truth, reads = world(5, images=60)
    whole = metric.score(reads, truth, CLASSES, TASK).parts
    same = metric.difference(whole, whole, 0.05)
    assert (same.drop, same.bounds, same.p) == (0.0, (0.0, 0.0), 1.0)
    half = [Found(*(v[1::2] for v in read[:3])) for read in reads]  # without the surest
    worse = metric.difference(whole, metric.score(half, truth, CLASSES, TASK).parts, 0.05)
    assert worse.p < 0.05 < worse.bounds[1]
    back = metric.difference(metric.score(half, truth, CLASSES, TASK).parts, whole, 0.05)
    assert (back.drop, back.p > 0.9) == (-worse.drop, True)
    assert worse == metric.difference(whole, metric.score(half, truth, CLASSES, TASK).parts, 0.05)


def test_other_images_are_refused() -> None:
    first, other = (metric.score(*reversed(world(s)), CLASSES, TASK).parts for s in (1, 2))
    with pytest.raises(ValueError, match="different test images"):
        metric.difference(first, other, 0.05)


def test_parts_are_small() -> None:
    truth, reads = world(1, images=40)
    parts = metric.score(reads, truth, CLASSES, TASK).parts
    rows = len(parts["image"])
    assert (
        sum(parts[k].nbytes for k in ("image", "index", "score", "matched", "ignored")) == 14 * rows
    )
    assert rows <= sum(len(read.boxes) for read in reads)
    assert paired.draws(40, 10, 0).sum(0).tolist() == [40] * 10


@given(objects=st.integers(1, 40_000), found=st.integers(0, 40_000))
def test_levels_of_recall_are_counted_to_the_last_bit(objects: int, found: int) -> None:
    recall = np.array([min(found, objects) / objects, round(found / 400) / 100])
    levels = np.searchsorted(np.linspace(0.0, 1.00, 101), recall, "right")
    assert metric._levels(recall).tolist() == levels.tolist()


@pytest.mark.parametrize(("decoder", "sure"), [("yolox", 0.25), ("fastestdet", 0.65)])
def test_a_networks_own_boxes_as_the_truth(decoder: str, sure: float) -> None:
    """Those that reach the decoder's own confidence; the task's, where none does."""
    _, reads = world(0)
    task = DetectionTask(decoder=decoder, input=(64, 64), confidence=0.001)
    told = task.told_by(reads, [(64, 64)] * len(reads))
    assert told is not None
    assert len(told.index) == sum(int((read.scores >= sure).sum()) for read in reads) > 0
    assert task.score(reads, told, CLASSES).value == pytest.approx(1.0)
    faint = [read._replace(scores=read.scores * np.float32(0.2)) for read in reads]
    every = task.told_by(faint, [(64, 64)] * len(reads))
    assert every is not None
    assert len(every.index) == sum(int((read.scores >= 0.001).sum()) for read in faint)
    silent = [read._replace(scores=read.scores * 0) for read in reads]
    assert task.told_by(silent, [(64, 64)] * len(reads)) is None
