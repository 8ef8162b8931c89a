"""COCO's outlines as maps: pycocotools' own filling, smaller above larger, crowds ignored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import data
from edgecv.data import coco_maps
from edgecv.data.annotations import IGNORED
from edgecv.data.files import tell
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")
mask = pytest.importorskip("pycocotools.mask")

LARGE = {"id": 1, "image_id": 5, "category_id": 9, "bbox": [2, 2, 20, 20],
         "segmentation": [[2, 2, 22, 2, 22, 22, 2, 22]]}  # fmt: skip
SMALL = {"id": 2, "image_id": 5, "category_id": 4, "bbox": [5, 5, 5, 5],
         "segmentation": [[5, 5, 10, 5, 10, 10, 5, 10], [12, 12, 15, 12, 15, 15]]}  # fmt: skip
BARE = {"id": 3, "image_id": 5, "category_id": 4, "bbox": [0, 0, 9, 9]}


def crowd(rows: int = 30) -> dict[str, object]:
    """The first three columns, as run lengths along columns."""
    runs = {"size": [rows, 40], "counts": [0, 3 * rows, 37 * rows]}
    return {"id": 4, "image_id": 5, "category_id": 9, "iscrowd": 1, "segmentation": runs}


def written(root: Path, *rows: dict) -> str:
    image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "a.png")
    said = {"images": [{"id": 5, "file_name": "a.png", "height": 30, "width": 40}],
            "categories": [{"id": 9, "name": "car"}, {"id": 4, "name": "wheel"}],
            "annotations": list(rows)}  # fmt: skip
    (root / "set.json").write_text(json.dumps(said))
    tell.cache_clear()
    return f"coco-maps:{root / 'set.json'}"


def test_outlines_become_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = written(tmp_path, SMALL, LARGE, BARE, crowd())
    made = data.materialise(source, "test", (8, 8), 3, {}, tmp_path / "out")
    assert made.classes == ("background", "wheel", "car")
    assert data.parse(source).truth == "Maps"
    expected = np.zeros((30, 40), int)
    expected[:, :3] = IGNORED
    for row, k in ((LARGE, 2), (SMALL, 1)):
        for polygon in row["segmentation"]:
            expected[mask.decode(mask.frPyObjects([polygon], 30, 40))[..., 0] > 0] = k
    assert (made.truth[0] == expected).all()
    assert {*np.unique(expected)} == {0, 1, 2, IGNORED}
    assert "annotations without an outline, left out: 1" in caplog.text


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (crowd(20), "annotation 4: its outline is of 20x40, the image is 30x40"),
        ({**LARGE, "segmentation": [["x"] * 6]}, "annotation 1: its segmentation is no outline"),
        ({**LARGE, "segmentation": {"counts": [3]}}, "its segmentation is no outline"),
        # pycocotools takes gigabytes for these, or writes beyond its memory
        ({**LARGE, "segmentation": [[0, 0, 1e12, 0, 5, 5]]}, "its outline reaches 1e\\+12 pixels"),
        ({**LARGE, "segmentation": [[-400, 0, 400, 0] * 3000]}, "longer than all"),
        ({**LARGE, "segmentation": {"size": [30, 40], "counts": [-5, 1205]}}, "no outline"),
        ({**LARGE, "segmentation": {"size": [30, 40], "counts": "oooooooooo0"}}, "no outline"),
        ({**LARGE, "segmentation": {"size": [30, 40], "counts": "W1"}}, "its outline is of 30x40"),
        ({**LARGE, "segmentation": {"size": [30, 40], "counts": 5}}, "no outline"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: dict, line: str) -> None:
    with pytest.raises(DataError, match=line):
        data.materialise(written(tmp_path, row), "test", (8, 8), 3, {}, tmp_path / "out")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_run_lengths_are_read_as_pycocotools_writes_them(h: int, w: int, seed: int) -> None:
    held = np.random.default_rng(seed).random((h, w)) < 0.4
    packed = mask.encode(np.asfortranarray(held.astype(np.uint8)))
    text = {"size": [h, w], "counts": packed["counts"].decode()}
    found = coco_maps._covered({"segmentation": text}, (h, w), "set.json")
    np.testing.assert_array_equal(found, held)
