"""What is true of pictures: held on disk, taken to the network's input and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.data.annotations import IGNORED, Boxes, Maps, PictureBoxes, placed
from edgecv.data.faults import Faults, mended
from edgecv.data.images import Images, as_outputs
from edgecv.errors import DataError
from edgecv.runtime.placement import place

SIDES = st.integers(1, 400)
SIZES = st.tuples(SIDES, SIDES)
PLACED = st.sampled_from([("crop", "centre"), ("stretch", "centre"), ("letterbox", "centre"),
                          ("letterbox", "corner")])  # fmt: skip


def boxes_of(rows: list[list[float]], index: list[int] | None = None) -> PictureBoxes:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return PictureBoxes(boxes, np.array(index or [0] * len(boxes), np.int64),
                        np.zeros(len(boxes), bool), area)  # fmt: skip


@given(image=SIZES, size=SIZES, how=PLACED, ends=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back_to_half_a_pixel(
    image: tuple[int, int], size: tuple[int, int], how: tuple[str, str], ends: list[float]
) -> None:
    (x0, x1), (y0, y1) = sorted(ends[:2]), sorted(ends[2:])
    whole = np.array([[x0, y0, x1, y1]]) * np.array([image[1], image[0]] * 2)
    truth = mended(whole, np.zeros(1, int), image, Faults())
    lies = place(how[0], image, size, 0.875, how[1])
    there = placed(truth, lies, size)
    scale, offset = (np.array([v[1], v[0]] * 2) for v in (lies.scale, lies.offset))
    if len(there):
        assert (there.boxes >= 0).all()
        assert (there.boxes <= np.array([size[1], size[0]] * 2)).all()
        back = (there.boxes - offset) / scale
        seen = ((truth.boxes * scale + offset).clip(0, [size[1], size[0]] * 2) - offset) / scale
        assert np.abs(back - seen).max() < 0.5
        if how[0] != "crop":  # nothing is cut off
            assert np.abs(back - truth.boxes).max() < 0.5
            np.testing.assert_allclose(there.area, truth.area * scale[0] * scale[1], rtol=1e-2)
    elif how[0] != "crop" and len(truth):  # a box that float32 closes is all that may be lost
        assert ((truth.boxes[:, 2:] - truth.boxes[:, :2]) * scale[:2]).min() < 1e-3


@given(image=SIZES, size=SIZES, how=PLACED)
def test_maps_come_to_the_input_by_the_nearest_pixel(
    image: tuple[int, int], size: tuple[int, int], how: tuple[str, str]
) -> None:
    lies = place(how[0], image, size, 0.875, how[1])
    rows = np.broadcast_to(np.linspace(0, 250, image[0]).astype(np.uint8)[:, None], image)
    there = placed(rows, lies, size)
    assert there.shape == size
    top, left = lies.offset
    inside = np.zeros(size, bool)
    inside[max(0, top) : top + lies.resized[0], max(0, left) : left + lies.resized[1]] = True
    assert ((there == IGNORED) == ~inside).all()
    for y in range(size[0]):
        if inside[y].any():
            at = (y + 0.5 - top) / lies.scale[0] - 0.5  # in the picture, a pixel's centre at 0
            near = rows[np.clip([np.floor(at), np.ceil(at)], 0, image[0] - 1).astype(int), 0]
            assert near[0] <= there[y][inside[y]][0] <= near[1]


def test_a_box_that_hardly_shows_is_left_out() -> None:
    lies = place("crop", (100, 200), (100, 100), 1.0, "centre")  # columns 50 to 150
    truth = boxes_of([[0, 0, 60, 50], [40, 0, 60, 50], [60, 10, 90, 40]], [1, 2, 3])
    there = placed(truth, lies, (100, 100))
    assert there.index.tolist() == [2, 3]  # a sixth of the first is seen
    assert there.boxes.tolist() == [[0, 0, 10, 50], [10, 10, 40, 40]]
    assert there.area.tolist() == [500, 900]


@pytest.mark.parametrize("kind", [Boxes, Maps])
def test_a_split_holds_them(tmp_path: Path, kind: type) -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    if kind is Boxes:
        truth = Boxes.of([boxes_of([]), boxes_of([[0, 0, 2, 3]], [1])], np.array([[5, 6], [7, 8]]))
    else:
        truth = Maps.of([np.full((5, 6), 1, np.uint8), np.full((2, 3), IGNORED, np.uint8)])
    made = Images(pixels, np.zeros(2, np.int64), ("a", "b"), truth=truth)
    made.save(tmp_path)
    back = Images.load(tmp_path)
    assert isinstance(back.truth, kind)
    assert back.truth.sizes.tolist() == truth.sizes.tolist()
    turned = as_outputs(back, ("b", "a")).truth
    if kind is Boxes:
        assert back.truth[1].boxes.tolist() == [[0, 0, 2, 3]]
        assert (len(back.truth[0]), turned[1].index.tolist()) == (0, [0])
    else:
        assert (back.truth[0] == 1).all()
        assert (turned[0] == 0).all()
        assert (turned[1] == IGNORED).all()
    with pytest.raises(DataError, match="one for each image"):
        Images(pixels, np.zeros(2, np.int64), ("a",), truth=truth.some([0]))


def test_classes_files_are_what_they_were(tmp_path: Path) -> None:
    Images(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int64), ("a",)).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "classes.json", "labels.npy", "pixels.npy"]  # fmt: skip
    assert Images.load(tmp_path).truth is None


def test_what_is_wrong_with_boxes_is_counted() -> None:
    nan, faults = float("nan"), Faults()
    rows = [[1, 1, 5, 5], [nan, 0, 2, 2], [3, 3, 3, 8], [8, 3, 3, 8], [-4, -4, 5, 5],
            [0, 0, 20.3, 10], [30, 0, 40, 9]]  # fmt: skip
    kept = mended(np.array(rows), np.arange(7), (10, 20), faults)
    assert kept.index.tolist() == [0, 4, 5]
    assert kept.boxes.tolist() == [[1, 1, 5, 5], [0, 0, 5, 5], [0, 0, 20, 10]]
    assert kept.area.tolist() == [16, 25, 200]
    assert faults.sentences() == [
        "boxes of no size, left out: 2",
        "boxes outside their picture, left out: 1",
        "boxes that reach outside their picture, cut off at its edge: 1",
        "boxes with a coordinate that is no number, left out: 1",
    ]
