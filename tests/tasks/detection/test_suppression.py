"""Suppression is the plain greedy one over all pairs, whatever is done to make it fast."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.tasks.detection.candidates import Asked
from edgecv.tasks.detection.suppression import BLOCK, suppressed


def plain(boxes, scores, index, ask: Asked) -> list[int]:
    """One pair at a time, in Python's own numbers."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        x0, y0, x1, y1 = map(float, boxes[i])
        alone = True
        for j in kept:
            if not ask.agnostic and index[i] != index[j]:
                continue
            a0, b0, a1, b1 = map(float, boxes[j])
            wide, high = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            shared = wide * high if wide > 0 and high > 0 else 0.0
            together = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared
            if together > 0 and shared / together > ask.iou:
                alone = False
        if alone:
            kept.append(i)
    return kept[: ask.most]


def some_boxes(count: int, seed: int, spread: int):
    """Whole pixels and few scores, so that both ways compute exactly and many are equal."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, spread, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 40, (count, 2))], 1)
    scores = rng.integers(1, 65, count) / 64
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, 3, count)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3 * BLOCK), st.integers(0, 2**32 - 1), st.sampled_from([1, 30, 200, 2000]),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans(), st.sampled_from([1, 10, 150, 999]),
)  # fmt: skip
def test_it_is_the_plain_one(count, seed, spread, iou, agnostic, most) -> None:
    boxes, scores, index = some_boxes(count, seed, spread)
    ask = Asked(0.0, iou, most, agnostic)
    assert suppressed(boxes, scores, index, ask).tolist() == plain(boxes, scores, index, ask)


def test_what_overlaps_by_exactly_the_threshold_stays() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], np.float32)  # IoU 1/2
    scores, index = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    assert suppressed(boxes, scores, index, Asked(0, 0.5, 9, False)).tolist() == [0, 1]
    assert suppressed(boxes, scores, index, Asked(0, 0.49, 9, False)).tolist() == [0]


def test_classes_do_not_suppress_each_other_unless_told_to() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4]], np.float32)
    scores, index = np.array([0.8, 0.9], np.float32), np.array([0, 1])
    assert suppressed(boxes, scores, index, Asked(0, 0.5, 9, False)).tolist() == [1, 0]
    assert suppressed(boxes, scores, index, Asked(0, 0.5, 9, True)).tolist() == [1]


def test_no_boxes() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert suppressed(*none, Asked(0, 0.5, 9, False)).shape == (0,)
