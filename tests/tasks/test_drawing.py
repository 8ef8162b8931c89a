"""Pictures with predictions drawn: what must hold of any picture; they were looked at as well."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from edgecv.errors import DataError
from edgecv.tasks import drawing, names

pytest.importorskip("PIL")

LABELS = ("ant", "bee", "cat", "dog", "eel")


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    index: np.ndarray  # type: ignore[assignment]


class Scored(NamedTuple):
    index: int  # type: ignore[assignment]
    label: str
    score: float


def found(*rows: tuple[float, float, float, float, float, int]) -> Found:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Found(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(int)
    )


def grey(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_drawing_is_no_task() -> None:
    assert "drawing" not in names()


@given(index=st.integers(0, 100_000))
def test_text_can_be_read_on_the_colour_of_every_class(index: int) -> None:
    ground = drawing.colour(index)
    dark, light = sorted(map(drawing.luminance, (ground, drawing.ink(ground))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_colours_of_the_first_classes_are_far_apart() -> None:
    colours = [np.array(drawing.colour(i), float) for i in range(20)]
    assert min(np.abs(a - b).sum() for a, b in combinations(colours, 2)) > 60


def test_luminance_is_that_of_wcag() -> None:
    """Of #767676, the lightest grey that white letters may stand on (4.54 to 1)."""
    assert (1.05 / (drawing.luminance((0x76, 0x76, 0x76)) + 0.05)) == pytest.approx(4.54, abs=0.005)


def test_a_box_is_framed_at_its_place_in_its_colour() -> None:
    image = grey(300, 400)
    drawn = drawing.boxes(image, found((100, 120, 300, 280, 0.9, 3)), LABELS)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    for y, x in ((200, 100), (200, 299), (120, 290), (279, 200)):
        assert tuple(drawn[y, x]) == drawing.colour(3)
    assert (drawn[150:250, 130:270] == 128).all()  # what lies within is left as it is
    assert (image == 128).all()


@pytest.mark.parametrize(("height", "width", "times"), [(28, 28, 8), (224, 10, 1), (100, 120, 2)])
def test_a_small_picture_is_enlarged_whole(height: int, width: int, times: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    drawn = drawing.boxes(image, found(), LABELS)
    assert (drawn == image.repeat(times, 0).repeat(times, 1)).all()


def test_the_surer_of_two_boxes_lies_above() -> None:
    rows = (50, 50, 250, 250, 0.4, 1), (50, 50, 250, 250, 0.8, 2)
    for order in (rows, rows[::-1]):
        assert tuple(drawing.boxes(grey(300, 300), found(*order), LABELS)[150, 50]) == (
            drawing.colour(2)
        )


def test_texts_do_not_lie_on_one_another_where_there_is_room() -> None:
    rows = [(100, 100, 200 + i, 200, 0.9 - 0.1 * i, i) for i in range(4)]
    drawn = drawing.boxes(grey(400, 400), found(*rows), LABELS)
    filled = [int((drawn == drawing.colour(i)).all(-1).sum()) for i in range(4)]
    assert min(filled) > 300  # a text's ground; a frame alone that others hide is less


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    boxes=stn.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32) | st.just(np.nan)),
    label=st.text(max_size=40),
)
def test_any_boxes_on_any_picture_are_drawn(
    size: tuple[int, int], boxes: np.ndarray, label: str
) -> None:
    image = grey(*size)
    read = Found(boxes, np.array([0.5, 1.0, 0.1]), np.array([0, 7, 2]))
    drawn = drawing.boxes(image, read, [label] * 3)
    assert drawn.shape[0] * image.shape[1] == drawn.shape[1] * image.shape[0]
    assert drawn.shape[2:] == (3,)


def test_what_lies_outside_the_picture_is_not_drawn() -> None:
    image = grey(300, 300)
    outside = found((310, 10, 400, 90, 0.9, 0), (10, -90, 60, -1, 0.9, 1), (5, 5, 5, 90, 0.9, 2))
    assert (drawing.boxes(image, outside, LABELS) == image).all()


def test_masks_colour_every_pixel_by_its_class_and_leave_the_ignored() -> None:
    image = grey(400, 400)
    classes = np.zeros((400, 400), np.uint8)
    classes[:, 200:], classes[300:] = 4, drawing.IGNORED
    drawn = drawing.masks(image, classes, LABELS)
    for x, index in ((150, 0), (350, 4)):
        wanted = 128 + drawing.OPACITY * (np.array(drawing.colour(index)) - 128.0)
        assert np.abs(drawn[250, x] - wanted).max() <= 0.5
    assert (drawn[310:] == 128).all()
    assert tuple(drawn[250, 199]) == drawing.colour(0)  # the border between the two


def test_the_colour_of_a_picture_does_not_change_that_of_a_class() -> None:
    """Red and a blue of the same luma, both of class 1."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, :200], image[:, 200:] = (97, 0, 0), (0, 0, 254)
    drawn = drawing.masks(image, np.ones((400, 400), np.uint8), LABELS).astype(int)
    assert np.abs(drawn[200, 100] - drawn[200, 300]).max() <= 1
    assert (drawing.masks(image, np.full((400, 400), drawing.IGNORED), LABELS) == image).all()


def test_the_legend_names_the_classes_present_the_largest_first() -> None:
    classes = np.full((400, 400), 2, np.uint8)
    classes[350:] = 1
    drawn = drawing.masks(grey(400, 400), classes, LABELS)
    corner = [tuple(drawn[y, 1]) for y in range(60)]
    first, second = corner[3], corner[20]
    assert (first, second) == (drawing.colour(2), drawing.colour(1))


def test_a_legend_that_has_no_room_counts_the_rest() -> None:
    classes = np.arange(200, dtype=np.uint8).repeat(2)[:, None].repeat(300, 1)
    drawn = drawing.masks(grey(400, 300), classes, ())
    assert drawn.shape == (400, 300, 3)
    rows = drawn[:, 1]
    assert (rows == 40).all(-1).any()  # "and N more" on dark grey


def test_classes_are_listed_in_their_colours() -> None:
    rows = [Scored(3, "dog", 0.9), Scored(0, "ant", 0.1)]
    drawn = drawing.classes(grey(300, 300), rows)
    assert [tuple(drawn[y, 1]) for y in (2, 18)] == [drawing.colour(3), drawing.colour(0)]


def test_a_long_label_keeps_its_score() -> None:
    wide = [drawing.classes(grey(300, 300), [Scored(1, "bee " * n, 0.5)]) for n in (1, 400)]
    ground = [(picture == drawing.colour(1)).all(-1).any(0).nonzero()[0].max() for picture in wide]
    assert ground[0] < 100
    assert 250 < ground[1] < 300


@pytest.mark.parametrize("shape", [(240, 300), (240, 300, 1), (240, 300, 2), (240, 300, 5)])
def test_grey_and_many_channels_become_three(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    drawn = drawing.boxes(image, found(), LABELS)
    channels = image.reshape(240, 300, -1)
    wanted = channels[..., :3] if channels.shape[2] > 2 else channels[..., :1].repeat(3, 2)
    assert (drawn == wanted).all()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(DataError, match="is not an image"):
        drawing.boxes(np.zeros((3, 3), np.float32), found(), LABELS)
    with pytest.raises(DataError, match="over an image"):
        drawing.masks(grey(30, 30), np.zeros((30, 31), np.uint8), LABELS)
