"""Boxes move with their pictures: a rectangle that is drawn is found again where its box says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.data.annotations import PictureBoxes
from edgecv.methods.training.plan import Plan
from edgecv.tasks.detection import augment

H, W = 64, 96
PLAN = Plan(1, flip=True, shift=4, scale=0.5)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def truth(boxes, index=None, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float32)
    index = np.arange(n) if index is None else np.array(index, np.int64)
    return PictureBoxes(boxes, index, np.zeros(n, bool) if crowd is None else np.array(crowd), area)


def drawn(truths):
    """A batch with a rectangle of its class's colour for every box, on white."""
    pixels = np.full((len(truths), H, W, 3), 255, np.uint8)
    for picture, true in zip(pixels, truths, strict=True):
        for (x0, y0, x1, y1), index in zip(true.boxes.astype(int), true.index, strict=True):
            picture[y0:y1, x0:x1] = COLOURS[index]
    return pixels


@st.composite
def batches(draw):
    """Up to four pictures, each with one box of each class at the most, side by side."""
    truths = []
    for _ in range(draw(st.integers(1, 4))):
        boxes = []
        for column in range(3):
            wide, high = draw(st.integers(8, 28)), draw(st.integers(8, 60))
            x = 32 * column + draw(st.integers(0, 30 - wide))
            y = draw(st.integers(0, H - high))
            boxes.append((x, y, x + wide, y + high))
        truths.append(truth(boxes))
    return truths


def seen(picture, box, index):
    """The box around the pixels of a class's colour near a box, and how many."""
    colour = np.array(COLOURS[index])
    near = (np.abs(picture.astype(int) - colour) < 100).all(2)
    x0, y0, x1, y1 = (int(v) for v in np.round(box))
    near = near[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2]
    rows, columns = near.any(1).nonzero()[0], near.any(0).nonzero()[0]
    assert len(rows)
    top, left = max(0, y0 - 2), max(0, x0 - 2)
    return np.array([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])


@given(batches(), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_box_is_around_its_rectangle(truths, seed):
    pixels = drawn(truths)
    before = pixels.copy()
    made, found = augment.augmented(pixels, truths, PLAN, np.random.default_rng(seed))
    np.testing.assert_array_equal(pixels, before)
    assert made.shape == pixels.shape
    assert len(found) == len(truths)
    for picture, true in zip(made, found, strict=True):
        for box, index, crowd in zip(true.boxes, true.index, true.crowd, strict=True):
            if not crowd:
                np.testing.assert_allclose(seen(picture, box, index), box, atol=1.5)


@given(batches(), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_rectangle_is_left_without_its_box(truths, seed):
    """Of a mosaic too: whatever colour shows lies in a box of its class."""
    plan = replace(PLAN, mosaic=0.5)
    made, found = augment.augmented(drawn(truths), truths, plan, np.random.default_rng(seed))
    for picture, true in zip(made, found, strict=True):
        for index, colour in enumerate(COLOURS):
            shows = (np.abs(picture.astype(int) - np.array(colour)) < 30).all(2)
            for x0, y0, x1, y1 in true.boxes[true.index == index]:
                shows[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
            assert not shows.any()


@given(batches(), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_boxes_stay_in_the_picture_and_keep_their_form(truths, seed):
    plan = replace(PLAN, mosaic=0.5, colour=0.3)
    _, found = augment.augmented(drawn(truths), truths, plan, np.random.default_rng(seed))
    for true in found:
        n = len(true)
        kinds = [(v.dtype, v.shape) for v in (true.boxes, true.index, true.crowd, true.area)]
        assert kinds == [("f4", (n, 4)), ("i8", (n,)), ("?", (n,)), ("f4", (n,))]
        assert (true.boxes[:, 2:] > true.boxes[:, :2]).all()
        assert (true.boxes >= 0).all()
        assert (true.boxes <= (W, H, W, H)).all()
        size = (true.boxes[:, 2:] - true.boxes[:, :2]).prod(1)
        np.testing.assert_allclose(true.area, size, rtol=1e-3)


@given(batches())
@settings(max_examples=20, deadline=None)
def test_mirrored_twice_is_the_same(truths):
    for true in truths:
        once = augment.mirrored(true, W)
        assert (once.boxes[:, 2] > once.boxes[:, 0]).all()
        np.testing.assert_array_equal(augment.mirrored(once, W).boxes, true.boxes)


def test_a_plan_that_asks_for_nothing_changes_nothing():
    truths = [truth([(10, 10, 40, 30)]), truth([])]
    still = Plan(1, flip=False, shift=0)
    made, found = augment.augmented(drawn(truths), truths, still, np.random.default_rng(0))
    np.testing.assert_array_equal(made, drawn(truths))
    np.testing.assert_array_equal(found[0].boxes, truths[0].boxes)
    assert len(found[1]) == 0


@pytest.mark.parametrize(
    ("box", "offset", "is_left"),
    [((10, 10, 30, 30), (0, 0), "taught"), ((10, 10, 30, 30), (0, -28), "crowd"),
     ((10, 10, 30, 30), (0, -31), "gone"), ((10, 10, 11, 30), (0, 0), "crowd")],
)  # fmt: skip
def test_what_is_hardly_seen_is_neither_taught_nor_denied(box, offset, is_left):
    lies = augment.augment.placed((H, W), (H, W), offset)
    found = augment.moved(truth([box], [2]), lies, (0, 0, H, W))
    assert {0: "gone", 1: "crowd" if found.crowd.any() else "taught"}[len(found)] == is_left


def test_a_crowd_stays_one():
    found = augment.moved(
        truth([(10, 10, 40, 40)], [1], [True]),
        augment.augment.placed((H, W), (H, W), (0, 0)), (0, 0, H, W),
    )  # fmt: skip
    assert found.crowd.all()


def test_a_mosaic_is_of_four_and_the_same_for_a_seed():
    truths = [truth([(20, 20, 70, 50)], [i]) for i in range(3)] + [truth([])]
    pixels = drawn(truths)
    one = augment.mosaic(pixels, truths, np.random.default_rng(3))
    two = augment.mosaic(pixels, truths, np.random.default_rng(3))
    np.testing.assert_array_equal(one[0], two[0])
    assert {0, 1, 2} == set(one[1].index.tolist())
