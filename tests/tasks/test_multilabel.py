"""Multi-label: scikit-learn's average precision, of any multiset of the images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import tasks
from edgecv.data.annotations import Boxes, Numbers, PictureBoxes
from edgecv.errors import DataError, StageError, UnsupportedError
from edgecv.runtime.placement import place
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.multilabel import MultilabelTask, value_of

CLASSES = ("a", "b", "c", "never")
LIES = place("stretch", (4, 4), (4, 4), 1.0, "centre")
TASK = MultilabelTask()


def read(z: np.ndarray, **asked: float) -> object:
    return TASK.read({"z": z}, LIES, (4, 4), **asked)


def world(seed: int, images: int = 20, skill: float = 1.5) -> tuple[Boxes, list, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths, reads, there = [], [], np.zeros((images, 4), bool)
    for i in range(images):
        index = rng.integers(0, 3, rng.integers(0, 4))
        m = len(index)
        boxes = np.tile(np.float32([0, 0, 2, 2]), (m, 1))
        truths.append(PictureBoxes(boxes, index, np.zeros(m, bool), np.ones(m, np.float32)))
        there[i, index] = True
        z = (skill * there[i] + rng.normal(0, 1, 4)).round(1).astype(np.float32)  # ties
        reads.append(read(z[None], **TASK.judging()))
    return Boxes.of(truths, np.full((images, 2), 4)), reads, there


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, reads, there = world(seed)
    score = TASK.score(iter(reads), truth, CLASSES)
    said = score.parts["said"]
    each = [metrics.average_precision_score(there[:, k], said[:, k]) for k in range(3)]
    assert [score.per_class[c] for c in "abc"] == pytest.approx(each)
    assert score.per_class["never"] is None
    assert score.value == pytest.approx(np.mean(each))
    called = said >= 0.5
    assert score.more["f1"] == pytest.approx(metrics.f1_score(there, called, average="micro"))
    assert score.more["precision"] == pytest.approx((called & there).sum() / called.sum())


@settings(deadline=None)
@given(seed=st.integers(0, 30), times=st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_any_multiset_of_the_images(seed: int, times: list[int]) -> None:
    truth, reads, there = world(seed)
    parts = TASK.score(reads, truth, CLASSES).parts
    images = np.repeat(np.arange(20), times)
    if there[images].any():
        whole = TASK.score([reads[i] for i in images], truth.some(images), CLASSES)
        assert value_of(parts, np.array(times)[:, None])[0] == pytest.approx(whole.value)


def test_what_is_difficult_alone_is_not_judged() -> None:
    box = np.tile(np.float32([0, 0, 2, 2]), (2, 1))
    own = [PictureBoxes(box, np.array([0, 0]), np.array(c), np.ones(2, np.float32))
           for c in ([True, True], [True, False])]  # fmt: skip
    truth = Boxes.of(own, np.full((2, 2), 4))
    reads = [read(np.float32([[5, -5]]), threshold=0), read(np.float32([[1, -5]]), threshold=0)]
    score = TASK.score(reads, truth, ("a", "b"))
    assert (score.value, score.more["recall"]) == (1.0, 1.0)
    with pytest.raises(DataError, match="1 answers for 2 images"):
        TASK.score(reads[:1], truth, ("a", "b"))
    with pytest.raises(DataError, match="no image has a class"):
        TASK.score(reads[:1], truth.some([0]), ("a", "b"))


def test_a_worse_network_is_told_from_the_same() -> None:
    truth, reads, _ = world(1, images=80)
    whole = TASK.score(reads, truth, CLASSES).parts
    assert TASK.difference(whole, whole, 0.05).p == 1.0
    worse = TASK.score(world(1, images=80, skill=0.2)[1], truth, CLASSES).parts
    found = TASK.difference(whole, worse, 0.05)
    assert found.p < 0.01
    assert 0 < found.bounds[0] < found.drop < found.bounds[1]
    with pytest.raises(ValueError, match="different test images"):
        TASK.difference(whole, TASK.score(*reversed(world(2, 80)[:2]), CLASSES).parts, 0.05)


def test_answers_are_what_reaches_the_threshold() -> None:
    z = np.float32([[0.1, 3.0, -2.0, np.nan]])
    found = TASK.answer(read(z), ("a", "b", "c", "d"))
    assert [p.label for p in found] == ["b", "a"]
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert [p.index for p in TASK.answer(read(z, threshold=0.9), ())] == [1]
    assert [row["label"] for row in TASK.to_json(read(z, threshold=0.1), ("a",))] == ["1", "a", "2"]


def test_a_manifest_holds_it() -> None:
    task = MultilabelTask("probabilities", 0.3)
    assert tasks.of_manifest({"task": "multilabel", **task.manifest()}) == task
    for wrong in ({"scores": "x"}, {"threshold": 2}):
        with pytest.raises(ValueError, match="decode"):
            MultilabelTask.of(wrong)
    fits = [TensorSpec("z", "float32", (1, 20))]
    assert MultilabelTask.of_graph(fits, (4, 4), 20, {}) == MultilabelTask()
    with pytest.raises(UnsupportedError, match="1x20, expected a row of scores 1x80"):
        MultilabelTask.of_graph(fits, (4, 4), 80, {})


def test_the_loss_is_binary_cross_entropy() -> None:
    torch = pytest.importorskip("torch")
    box = np.tile(np.float32([0, 0, 2, 2]), (2, 1))
    own = PictureBoxes(box, np.array([0, 2]), np.array([False, True]), np.ones(2, np.float32))
    z = torch.tensor([[0.5, -1.0, 4.0]], requires_grad=True)
    loss = TASK.loss(z, [own])
    expected = (np.log1p(np.exp(-0.5)) + np.log1p(np.exp(-1.0))) / 3  # the third is not judged
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert z.grad[0, 2] == 0


def test_a_table_of_0_and_1_says_the_same_as_boxes() -> None:
    truth, reads, there = world(3)
    rows = Numbers.of(list(there.astype(float)), np.full((len(there), 2), 4))
    of_boxes, of_rows = (TASK.score(reads, t, CLASSES) for t in (truth, rows))
    assert (of_rows.value, of_rows.per_class) == (of_boxes.value, of_boxes.per_class)
    assert of_rows.more == of_boxes.more
    unsure = Numbers(rows.sizes, np.where(np.arange(4) == 0, np.nan, rows.values))
    assert TASK.score(reads, unsure, CLASSES).per_class["a"] is None
    half = Numbers(rows.sizes, np.full_like(rows.values, 0.5))
    with pytest.raises(DataError, match=r"a class is 0\.5 on image 0: neither 0 nor 1"):
        TASK.score(reads, half, CLASSES)


def test_rows_of_a_table_are_learned() -> None:
    torch = pytest.importorskip("torch")
    from edgecv.methods.training.plan import Plan

    z = torch.tensor([[0.5, -1.0, 4.0]], requires_grad=True)
    loss = TASK.loss(z, [np.array([1.0, 0.0, np.nan])])
    assert loss.item() == pytest.approx((np.log1p(np.exp(-0.5)) + np.log1p(np.exp(-1.0))) / 3)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    rows = [np.zeros(3)] * 4
    moved, same = TASK.augmented(pixels, rows, Plan(epochs=1), np.random.default_rng(0))
    assert same is rows
    assert (moved.shape, moved.dtype) == (pixels.shape, np.uint8)
    assert (moved != pixels).any()
    with pytest.raises(StageError, match="mosaic is not read"):
        TASK.augmented(pixels, rows, Plan(epochs=1, mosaic=0.5), np.random.default_rng(0))
