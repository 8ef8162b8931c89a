"""Which boxes of two detectors are of one object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgecv.tasks.detection import DetectionTask
from edgecv.tasks.detection.matching import SAME, of_one_class, overlaps, paired

TASK = DetectionTask("end2end", input=(64, 64))


class Boxes(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # as Found has it


def boxes(rows: list[tuple[float, float, float, float, int]]) -> Boxes:
    """rows: x, y, width, height, class"""
    found = np.array(rows, np.float32).reshape(-1, 5)
    corners = np.hstack([found[:, :2], found[:, :2] + found[:, 2:4]])
    return Boxes(corners, np.ones(len(rows), np.float32), found[:, 4].astype(np.int64))


ROW = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 20)] * 2, st.integers(0, 1))
SOME = st.lists(ROW, max_size=8).map(boxes)


@given(SOME, SOME)
def test_pairs_are_of_one_class_overlap_and_are_each_used_once(a: Boxes, b: Boxes) -> None:
    pairs = of_one_class(a, b)
    over = overlaps(a.boxes, b.boxes)
    for side in (0, 1):
        assert len({pair[side] for pair in pairs}) == len(pairs)
    assert all(over[i, j] >= SAME and a.index[i] == b.index[j] for i, j in pairs)
    left = over * (a.index[:, None] == b.index[None])
    for i, j in pairs:
        left[i], left[:, j] = 0, 0
    assert left.max(initial=0) < SAME, "two boxes that could be a pair stayed alone"


@given(SOME, SOME)
def test_what_both_find_is_a_share_of_what_either_finds(a: Boxes, b: Boxes) -> None:
    both, either = TASK.same(a, b)
    assert (both, either) == TASK.same(b, a)
    assert 0 <= both <= min(len(a.boxes), len(b.boxes))
    assert max(len(a.boxes), len(b.boxes)) <= either == len(a.boxes) + len(b.boxes) - both


@given(SOME)
def test_a_detector_finds_what_it_finds(a: Boxes) -> None:
    assert TASK.same(a, a) == (len(a.boxes), len(a.boxes))


def test_the_largest_overlap_comes_first() -> None:
    assert paired(np.array([[0.6, 0.9], [0.0, 0.7]])) == [(0, 1)]
    assert paired(np.array([[0.9, 0.6], [0.0, 0.7]])) == [(0, 0), (1, 1)]
