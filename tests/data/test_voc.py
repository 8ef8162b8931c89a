"""Pascal VOC's XML: pixels from 1, splits by lists, and what is wrong with it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.data.files import tell
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def _afresh() -> None:
    tell.cache_clear()


def thing(name: str, *box: object, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in sides)
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox>{part}</object>"


def picture(root: Path, name: str, *things: str, size: str = "") -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    text = f"<annotation>{size}{''.join(things)}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    hard = "<difficult>1</difficult>"
    picture(
        tmp_path, "a", thing("dog", 1, 1, 60, 40), thing("cat", 11, 5, 20, 9, more=hard), size=size
    )
    picture(tmp_path, "b", thing("cat", 30.5, 20, 40, 30))
    picture(tmp_path, "c")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nc\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b  1\n")
    return tmp_path


def test_boxes_in_pixels_from_zero(root: Path) -> None:
    train = data.materialise(f"voc:{root}", "train", (8, 8), 3, {}, root / "1")
    test = data.materialise(f"voc:{root}", "test", (8, 8), 3, {}, root / "2")
    assert train.classes == test.classes == ("cat", "dog")
    first = train.truth[0]
    assert first.boxes.tolist() == [[0, 0, 60, 40], [10, 4, 20, 9]]
    assert (first.index.tolist(), first.crowd.tolist()) == ([1, 0], [False, True])
    assert (len(train.truth[1]), test.truth[0].boxes.tolist()) == (0, [[29.5, 19, 40, 30]])


def test_names_and_splits_that_are_not_said(root: Path) -> None:
    (root / "classes.txt").write_text("dog\ncat\nbird\n")
    assert data.parse(f"voc:{root}").items("train").classes == ("dog", "cat", "bird")
    (root / "ImageSets" / "Main" / "val.txt").unlink()
    assert data.parse(f"voc:{root}").items("test").count == 3
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match="class 'cat' is not in classes"):
        data.materialise(f"voc:{root}", "test", (8, 8), 3, {}, root / "out")


def test_what_is_odd_is_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(root, "d", thing("cat", 20, 30, 10, 5), thing("cat", 50, 1, 90, 9),
            thing("cat", 5, 5, 4, "nan"))  # fmt: skip
    (root / "ImageSets" / "Main" / "val.txt").write_text("d\ngone\n")
    with caplog.at_level(logging.WARNING):
        made = data.materialise(f"voc:{root}", "test", (8, 8), 3, {}, root / "out")
    assert made.truth[0].boxes.tolist() == [[9, 4, 20, 30], [49, 0, 60, 9]]
    for line in (
        "boxes with swapped corners, turned: 1",
        "cut off at its edge: 1",
        "is no number, left out: 1",
        "1 names have no image (gone, ...): left out",
    ):
        assert line in caplog.text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<annotation>", "is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "entities of its own"),
        ("<annotation><object/></annotation>", "an object has no name"),
        (f"<annotation>{thing('cat', 1, 2, 3, 'x')}</annotation>", "bndbox/ymax is 'x', no number"),
        ("<annotation><object><name>cat</name></object></annotation>", "has no bndbox/xmin"),
        ("<annotation><size><width>9</width><height>9</height></size></annotation>",
         "is of a picture of 9x9, and it is 40x60"),
        ("<annotation><size><width>nan</width><height>inf</height></size></annotation>",
         "is of a picture of infxnan, and it is 40x60"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(root: Path, text: str, line: str) -> None:
    (root / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(DataError, match=line) as caught:
        data.materialise(f"voc:{root}", "test", (8, 8), 3, {}, root / "out")
    assert "b.xml" in caught.value.where


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder Annotations"):
        data.parse(f"voc:{tmp_path}").items("test")
    picture(tmp_path, "a")
    with pytest.raises(DataError, match="no annotation has an object"):
        data.parse(f"voc:{tmp_path}").items("test")
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match="no image has an annotation"):
        data.parse(f"voc:{tmp_path}").items("test")


def test_the_fingerprint_covers_annotations(root: Path) -> None:
    seen = [data.fingerprint(f"voc:{root}", split) for split in ("train", "test")]
    picture(root, "b", thing("cat", 1, 2, 3, 4))
    seen.append(data.fingerprint(f"voc:{root}", "test"))
    assert len(set(seen)) == 3
