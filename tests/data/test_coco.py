"""COCO files: the same boxes as pycocotools reads, and what is wrong with them."""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import data
from edgecv.data.files import tell
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")

SAID: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "b.png", "height": 40, "width": 60},
               {"id": 3, "file_name": "a.png", "height": 20, "width": 30},
               {"id": 9, "file_name": "bare.png", "height": 20, "width": 30}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "bicycle"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.5, 2, 10, 20.25], "area": 90.5,
         "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [0, 0, 30, 20], "area": 600,
         "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 2, "bbox": [20, 20, 5, 5]}],
}  # fmt: skip


def written(root: Path, said: dict[str, Any], images: str = "images") -> Path:
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for row in said["images"]:
        picture = np.full((row["height"], row["width"], 3), row["id"], np.uint8)
        image.fromarray(picture).save(root / images / row["file_name"])
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps(said))
    return path


@pytest.fixture(autouse=True)
def _afresh() -> None:
    tell.cache_clear()


@pytest.mark.parametrize("images", ["annotations", "annotations/images", "images", "val",
                                    "images/val", "", "elsewhere"])  # fmt: skip
def test_boxes_are_those_of_pycocotools(
    tmp_path: Path, images: str, caplog: pytest.LogCaptureFixture
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    path = written(tmp_path, SAID, images)
    source = f"coco:{path}" + (f":{tmp_path / images}" if images == "elsewhere" else "")
    with caplog.at_level(logging.WARNING):
        made = data.materialise(source, "test", (8, 8), 3, {}, tmp_path / "out")
    assert "1 images have no annotation" in caplog.text
    assert data.parse(source).truth == "Boxes"
    items = data.parse(source).items("test")
    assert (items.ids, made.classes, made.labels.tolist()) == (
        (2, 18), ("bicycle", "dog"), [0, 0, 0])  # fmt: skip
    theirs = coco.COCO(str(path))
    for i, row in enumerate(sorted(SAID["images"], key=lambda row: row["id"])):
        assert made.pixels[i].flat[0] == row["id"]
        own, rows = made.truth[i], theirs.loadAnns(theirs.getAnnIds(row["id"]))
        corners = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in rows)]
        assert own.boxes.tolist() == corners
        assert [items.ids[k] for k in own.index] == [r["category_id"] for r in rows]
        assert own.crowd.tolist() == [bool(r.get("iscrowd")) for r in rows]
        assert own.area.tolist() == [r.get("area", 25) for r in rows]
    assert made.truth.sizes.tolist() == [[20, 30], [40, 60], [20, 30]]


def test_what_cannot_be_used_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = copy.deepcopy(SAID)
    odd = [
        [1, 1, 0, 5],
        [50, 30, 40, 40],
        [float("nan"), 1, 2, 2],
        [5, 5, -3, 4],
        None,
        [99, 0, 1, 1],
        [1, 1, 3, 10**400],
    ]
    said["annotations"] += [
        {"id": 10 + i, "image_id": 7, "category_id": 2, "bbox": box} for i, box in enumerate(odd)
    ]
    said["annotations"].append({"id": 30, "image_id": 99, "category_id": 2, "bbox": [0, 0, 1, 1]})
    path = written(tmp_path, said)
    (tmp_path / "images" / "a.png").unlink()
    with caplog.at_level(logging.WARNING):
        made = data.materialise(f"coco:{path}", "test", (8, 8), 3, {}, tmp_path / "out")
    assert made.truth[0].boxes.tolist()[2:] == [[50, 30, 60, 40]]
    for line in ("boxes of no size, left out: 2", "is no number, left out: 3",
                 "outside their picture, left out: 1", "cut off at its edge: 1",
                 "1 annotations are of images that it does not name: left out",
                 "1 of its 3 images are not there (a.png, ...): left out"):  # fmt: skip
        assert line in caplog.text


def _with(change: Any) -> dict[str, Any]:
    said = copy.deepcopy(SAID)
    change(said)
    return said


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (_with(lambda s: s["annotations"][0].update(category_id=5)), "category 5"),
        (_with(lambda s: s.update(annotations=[])), "has no annotations"),
        (_with(lambda s: s.pop("categories")), "has no list 'categories'"),
        (_with(lambda s: s["images"][0].pop("file_name")), "has no id or no file_name"),
        (_with(lambda s: s["images"][0].update(id=3)), "two images of one id"),
        (_with(lambda s: s["categories"][0].update(id=2)), "two categories of the id 2"),
        (_with(lambda s: s["categories"][0].update(id="x")), "is no whole number"),
        (_with(lambda s: s["images"][0].update(file_name=7)), "has no id or no file_name"),
        (_with(lambda s: s["images"][0].update(height=math.nan)), "of height and width"),
        (_with(lambda s: s["images"][0].update(width="bool")), "of height and width"),
        (_with(lambda s: s["images"][0].update(width=[1])), "of height and width"),
        (_with(lambda s: s["images"][0].update(height=math.inf)), "of height and width"),
        (_with(lambda s: s["annotations"][0].update(category_id=[1])), r"category \[1\]"),
        ([1, 2], "has no list 'images'"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, said: Any, line: str) -> None:
    path = written(tmp_path, SAID)
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match=line) as caught:
        data.parse(f"coco:{path}").items("test")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, SAID)
    for source, line in (
        (f"coco:{tmp_path}/no.json", "no such file"),
        (f"coco:{path}:{tmp_path}/no", "no folder"),
        (f"coco:{path}:{tmp_path}/annotations", "none of its 3 images"),
    ):
        with pytest.raises(DataError, match=line):
            data.parse(source).items("test")
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        data.fingerprint(f"coco:{path}", "test")


def test_a_name_that_no_file_can_have_is_not_there(tmp_path: Path) -> None:
    said = _with(lambda s: s["images"][0].update(file_name="y" * 5000))
    path = written(tmp_path, SAID)
    path.write_text(json.dumps(said))
    assert data.parse(f"coco:{path}").items("test").count == 2


def test_an_area_that_no_picture_has_is_the_boxs_own(tmp_path: Path) -> None:
    path = written(tmp_path, _with(lambda s: s["annotations"][0].update(area=1e308)))
    made = data.materialise(f"coco:{path}", "test", (8, 8), 3, {}, tmp_path / "out")
    assert made.truth.area.tolist()[-2:] == [202.5, 25]


def test_a_name_of_half_a_character_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, _with(lambda s: s["categories"][0].update(name="dog\ud800")))
    with pytest.raises(DataError, match=r"class 'dog\\ud800' is no text"):
        data.materialise(f"coco:{path}", "test", (8, 8), 3, {}, tmp_path / "out")


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SAID)
    image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match=r"b\.png.* is 60x40 upright, and .* says 40x60"):
        data.materialise(f"coco:{path}", "test", (8, 8), 3, {}, tmp_path / "out")


def test_the_fingerprint_covers_annotations_and_images(tmp_path: Path) -> None:
    path = written(tmp_path, SAID)
    before = data.fingerprint(f"coco:{path}", "test")
    path.write_text(json.dumps(_with(lambda s: s["annotations"][0].update(bbox=[1, 1, 1, 1]))))
    changed = data.fingerprint(f"coco:{path}", "test")
    image.fromarray(np.ones((40, 60, 3), np.uint8)).save(tmp_path / "images" / "b.png")
    assert len({before, changed, data.fingerprint(f"coco:{path}", "test")}) == 3
