"""YOLO's text labels: shares to pixels, outlines, splits, and what is wrong with them."""

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


def picture(root: Path, name: str, label: str | None, size: tuple[int, int] = (40, 80)) -> None:
    """images/NAME.png and labels/NAME.txt below root; no label file where label is None."""
    path = root / "images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    if label is not None:
        text = root / "labels" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    picture(tmp_path, "train/a", "1 0.5 0.5 0.25 0.5\n")
    picture(tmp_path, "val/b", "0 0.25 0.5 0.5 1\n\n1 0.5 0 1 0 1 1\n0 0.25 0.5 0.5 1\n")
    picture(tmp_path, "val/empty", "")
    return tmp_path


def yaml(root: Path, text: str, name: str = "data.yaml") -> str:
    (root / name).write_text(text)
    return f"yolo:{root / name}"


LISTED = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
MAPPED = "path: {0}\ntrain: images/train\nval: [images/val]\nnc: 2\nnames: {{1: dog, 0: cat}}\n"


@pytest.mark.parametrize("text", [LISTED, MAPPED, "path: .\n" + LISTED])
def test_a_data_yaml(root: Path, text: str, tmp_path: Path) -> None:
    source = yaml(root, text.format(root) if "{" in text else text, "coco8.yaml")
    train = data.materialise(source, "train", (8, 8), 3, {}, tmp_path / "1")
    test = data.materialise(source, "test", (8, 8), 3, {}, tmp_path / "2")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.truth[0].boxes.tolist() == [[30, 10, 50, 30]]
    assert (train.truth[0].index.tolist(), train.truth.sizes.tolist()) == ([1], [[40, 80]])
    # equal lines are one box; of an outline its extent and its own area
    assert test.truth[0].boxes.tolist() == [[0, 0, 40, 40], [40, 0, 80, 40]]
    assert test.truth[0].area.tolist() == [1600, 800]
    assert (len(test.truth[1]), data.parse(source).truth) == (0, "Boxes")


def test_a_folder(root: Path) -> None:
    source = f"yolo:{root}"
    assert data.parse(source).items("train").classes == ("0", "1")
    assert data.parse(source).items("test").classes == ("0", "1")
    (root / "classes.txt").write_text("cat\ndog\nbird\n")
    assert data.parse(source).items("test").classes == ("cat", "dog", "bird")
    yaml(root, LISTED)
    assert data.parse(source).items("test").classes == ("cat", "dog")
    assert [data.parse(source).items(s).count for s in ("train", "test")] == [1, 2]


def test_a_list_of_images(root: Path) -> None:
    (root / "val.txt").write_text("./images/val/b.png\nimages/val/gone.png\n")
    source = yaml(root, "val: val.txt\nnames: [cat, dog]\n")
    assert data.parse(source).items("test").count == 1
    with pytest.raises(DataError, match="has no key train"):
        data.parse(source).items("train")


def test_a_set_that_was_moved(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = yaml(root, "path: ../datasets/x\nval: images/2017\nnames: [cat, dog]\n")
    with caplog.at_level(logging.WARNING):
        assert data.parse(source).items("test").count == 2
    assert "images/2017 is not there" in caplog.text


def test_what_has_no_partner_is_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(root, "val/unlabelled", None)
    (root / "labels" / "val" / "gone.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "labels" / "val" / "b.txt").write_text("0 1 0.5 0.5 0.5\n1 .5 .5 0 1\n1 nan .5 1 1\n")
    with caplog.at_level(logging.WARNING):
        made = data.materialise(f"yolo:{root}", "test", (8, 8), 3, {}, root / "out")
    assert made.truth[0].boxes.tolist() == [[60, 10, 80, 30]]
    for line in ("1 images have no label file", "1 label files have no image (gone.txt",
                 "boxes of no size, left out: 1", "is no number, left out: 1",
                 "cut off at its edge: 1"):  # fmt: skip
        assert line in caplog.text


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("2 0.5 0.5 1 1", r"b.txt:1: class 2 is none \(there are 2 names\)"),
        ("0 .5 .5 1 1\n-1 0.5 0.5 1 1", "b.txt:2: class -1 is none"),
        ("0.5 0.5 0.5 1 1", "class 0.5 is none"),
        ("inf 0.5 0.5 1 1", "class inf is none"),
        ("0 320 240 100 50", "is not in shares"),
        ("0 0.5 0.5 1", "is no label"),
        ("0 0.5 0.5 1 1 0.9", "is no label"),
        ("cat 0.5 0.5 1 1", "'cat 0.5 0.5 1 1' is no label"),
    ],
)
def test_a_wrong_line_is_named(root: Path, label: str, line: str) -> None:
    (root / "labels" / "val" / "b.txt").write_text(label)
    with pytest.raises(DataError, match=line):
        data.materialise(yaml(root, LISTED), "test", (8, 8), 3, {}, root / "out")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("val: images/val\n", "names: is missing"),
        ("val: images/val\nnames: {0: a, 2: b}\n", "has not every number from 0 to 1"),
        ("val: images/val\nnc: 3\nnames: [a, b]\n", "nc: is 3, and there are 2 names"),
        ("- a\n", "is no mapping"),
        ("a: [\n", "data.yaml"),
    ],
)
def test_a_wrong_data_yaml(root: Path, text: str, line: str) -> None:
    with pytest.raises(DataError, match=line):
        data.parse(yaml(root, text)).items("test")


def test_a_list_of_no_names_is_refused(root: Path) -> None:
    (root / "data.yaml").unlink(missing_ok=True)
    (root / "classes.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"classes\.txt: holds no names"):
        data.parse(f"yolo:{root}").items("test")


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        data.parse(f"yolo:{tmp_path / 'no'}").items("test")
    with pytest.raises(DataError, match="has no folder images"):
        data.parse(f"yolo:{tmp_path}").items("test")
    picture(tmp_path, "a", None)
    with pytest.raises(DataError, match="none of 1 images has a label"):
        data.parse(f"yolo:{tmp_path}").items("test")


def test_the_fingerprint_covers_labels_and_names(root: Path) -> None:
    seen = [data.fingerprint(yaml(root, LISTED), "test")]
    seen.append(data.fingerprint(yaml(root, LISTED.replace("dog", "cow")), "test"))
    (root / "labels" / "val" / "b.txt").write_text("0 0.5 0.5 1 1")
    seen.append(data.fingerprint(yaml(root, LISTED), "test"))
    seen.append(data.fingerprint(yaml(root, LISTED), "train"))
    assert len(set(seen)) == 4
