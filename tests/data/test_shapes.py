"""The set of shapes: boxes, areas and maps say the same, and the same word gives the same bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import data
from edgecv.data import shapes
from edgecv.data.annotations import IGNORED, Boxes, Maps
from edgecv.errors import DataError


def both(split: str, index: int) -> tuple:
    """(pixels, boxes, map) of a picture, by the two words."""
    found, mapped = (
        data.parse(word).items(split).item(index) for word in ("shapes-boxes", "shapes-maps")
    )
    assert (found[0] == mapped[0]).all()
    return found[0], found[1], mapped[1]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["train", "test"]), st.integers(0, 149))
def test_boxes_and_maps_agree(split: str, index: int) -> None:
    pixels, found, classes = both(split, index)
    assert pixels.shape == (shapes.SIDE, shapes.SIDE, 3)
    assert classes.shape == pixels.shape[:2]
    assert 1 <= len(found) <= 5
    left = classes != 0
    for (x0, y0, x1, y1), kind, area in zip(found.boxes, found.index, found.area, strict=True):
        assert 0 <= x0 < x1 <= shapes.SIDE
        assert 0 <= y0 < y1 <= shapes.SIDE
        near = np.s_[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2]
        part = classes[near]
        assert set(np.unique(part)) - {0, IGNORED} == {kind + 1}
        ring, inside = (part == IGNORED).sum(), (part == kind + 1).sum()
        assert abs(inside - area) <= ring  # by the width of the outline at the most
        left[near] = False
    assert not left.any()


def test_splits_have_other_pictures_and_a_larger_set_has_the_smaller_ones_first() -> None:
    small, large = (data.parse(f"shapes-boxes:{n}") for n in (16, 40))
    assert [small.items(s).count for s in ("train", "test")] == [16, 4]
    train, test = (small.items(s).item(3)[0] for s in ("train", "test"))
    assert (train == large.items("train").item(3)[0]).all()
    assert (train != test).any()
    assert data.parse("shapes-boxes").items("train").count == shapes.TRAINED


def test_fingerprints_differ_by_all_that_changes_pictures() -> None:
    words = ("shapes-boxes", "shapes-maps", "shapes-boxes:16")
    told = [data.fingerprint(word, split) for word in words for split in ("train", "test")]
    assert len(set(told)) == len(told)
    assert told == [data.fingerprint(word, split) for word in words for split in ("train", "test")]


@pytest.mark.parametrize(
    ("word", "task", "truth", "classes"),
    [
        ("shapes-boxes:8", "detection", Boxes, ("disc", "square", "triangle")),
        ("shapes-maps:8", "segmentation", Maps, ("background", "disc", "square", "triangle")),
    ],
)
def test_materialised(tmp_path, word, task, truth, classes) -> None:
    assert data.parse(word).task == task
    images = data.materialise(word, "train", (64, 64), None, {"resize": "stretch"}, tmp_path)
    assert images.pixels.shape == (8, 64, 64, 3)
    assert images.classes == classes
    assert isinstance(images.truth, truth)
    assert (images.truth.sizes == shapes.SIDE).all()


@pytest.mark.parametrize("count", ["", "0", "many", "-3", "1000000", "9" * 5000])
def test_no_number_of_pictures(count: str) -> None:
    with pytest.raises(DataError, match="is no number of pictures"):
        data.parse(f"shapes-maps:{count}").items("train")
