"""mIoU against a plain reference, of any multiset of the images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.data.annotations import IGNORED, Maps
from edgecv.errors import DataError
from edgecv.tasks.segmentation import SegmentationTask, Segmented, metric

CLASSES = ("a", "b", "c", "d", "never")


def world(seed: int, images: int = 8, skill: float = 0.7) -> tuple[Maps, list[Segmented]]:
    rng = np.random.default_rng(seed)
    maps, reads = [], []
    for _ in range(images):
        shape = tuple(rng.integers(1, 12, 2))
        true = rng.choice([0, 1, 2, 3, IGNORED], shape, p=[0.4, 0.3, 0.1, 0.1, 0.1])
        said = np.where(rng.random(shape) < skill, true, rng.integers(0, 4, shape))
        maps.append(true.astype(np.uint8))
        reads.append(Segmented(said.astype(np.uint8)))
    return Maps.of(maps), reads


def plain(
    truth: Maps, reads: list[Segmented], images: list[int]
) -> tuple[float, list[float], float]:
    """From one confusion matrix, row true and column said; 255 is said beside it."""
    matrix = np.zeros((5, 6), int)
    for i in images:
        for t, s in zip(truth[i].ravel(), reads[i].map.ravel(), strict=True):
            if t != IGNORED:
                matrix[t, min(s, 5)] += 1
    square = matrix[:, :5]
    with np.errstate(invalid="ignore"):
        iou = np.diag(square) / (matrix.sum(1) + square.sum(0) - np.diag(square))
    return np.nanmean(iou), iou.tolist(), np.diag(square).sum() / matrix.sum()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_plain_one(seed: int) -> None:
    truth, reads = world(seed)
    score = metric.score(iter(reads), truth, CLASSES)
    value, of_class, accuracy = plain(truth, reads, list(range(8)))
    assert score.value == pytest.approx(value, abs=1e-12)
    assert score.more == {"pixel_accuracy": pytest.approx(accuracy)}
    assert score.per_class["never"] is None
    assert list(score.per_class.values())[:4] == pytest.approx(of_class[:4])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), times=st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_any_multiset_of_the_images(seed: int, times: list[int]) -> None:
    truth, reads = world(seed)
    parts = metric.score(reads, truth, CLASSES).parts
    images = [i for i, n in enumerate(times) for _ in range(n)]
    if any((truth[i] != IGNORED).any() for i in images):
        value = metric.value_of(parts, np.array(times)[:, None])[0]
        assert value == pytest.approx(plain(truth, reads, images)[0], abs=1e-12)


def test_a_worse_network_is_told_from_the_same() -> None:
    truth, reads = world(1, images=60)
    whole = metric.score(reads, truth, CLASSES).parts
    same = metric.difference(whole, whole, 0.05)
    assert (same.drop, same.bounds, same.p) == (0.0, (0.0, 0.0), 1.0)
    _, worse = world(1, images=60, skill=0.5)
    found = metric.difference(whole, metric.score(worse, truth, CLASSES).parts, 0.05)
    assert found.p < 0.01
    assert 0 < found.bounds[0] < found.drop < found.bounds[1]
    with pytest.raises(ValueError, match="different test images"):
        metric.difference(whole, metric.score(*reversed(world(2, 60)), CLASSES).parts, 0.05)


@pytest.mark.parametrize(
    ("said", "true", "line"),
    [
        ((3, 4), (4, 3), "the map is 3x4, not 4x3"),
        ((2, 2), (2, 2), "class 9 of 5 has no name"),
    ],
)
def test_what_cannot_be_judged(said: tuple[int, int], true: tuple[int, int], line: str) -> None:
    truth = Maps.of([np.full(true, 9, np.uint8)])
    with pytest.raises(DataError, match=line):
        metric.score([Segmented(np.zeros(said, np.uint8))], truth, CLASSES)


def test_there_must_be_something_to_judge_by() -> None:
    nothing = Maps.of([np.full((2, 2), IGNORED, np.uint8)])
    with pytest.raises(DataError, match="no pixel has a class"):
        metric.score([Segmented(np.zeros((2, 2), np.uint8))], nothing, CLASSES)
    with pytest.raises(DataError, match="0 answers for 1 images"):
        metric.score([], nothing, CLASSES)


def test_a_networks_own_maps_as_the_truth() -> None:
    _, reads = world(0)
    task = SegmentationTask(input=(4, 4))
    told = task.told_by(reads, [read.map.shape for read in reads])
    assert task.score(reads, told, CLASSES).value == 1.0
    _, others = world(1, skill=0.2)
    others = [Segmented(np.resize(o.map, r.map.shape)) for o, r in zip(others, reads, strict=True)]
    assert task.score(others, told, CLASSES).value < 0.5
    unseen = [Segmented(np.full((2, 2), IGNORED, np.uint8))]
    assert task.told_by(unseen, [(2, 2)]) is None
