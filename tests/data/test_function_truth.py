"""A torch Dataset of one's own that says boxes or maps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.errors import DataError

MODULE = """
import numpy as np

NAMES = ["cat", "dog"]

class Set:
    def __init__(self, labels, classes=None):
        self.labels = labels
        if classes:
            self.classes = classes
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, i):
        return np.full((20, 30, 3), i, np.uint8), self.labels[i]

BOX = {"boxes": np.array([[1, 2, 11, 12], [5, 5, 40, 9.5]]), "labels": np.array([1, 0])}
NONE = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0)}
MAP = np.arange(600).reshape(20, 30) % 2

def boxes(split): return Set([BOX, NONE], NAMES)
def unnamed(split): return Set([NONE, {**BOX, "iscrowd": [0, 1], "area": [50, 60]}])
def maps(split): return Set([MAP, np.where(MAP, 1, 255)])
def mixed(split): return Set([MAP, 3])
def far(split): return Set([{**BOX, "labels": [0, 2]}], NAMES)
def odd(split): return Set([{**BOX, "labels": [0]}], NAMES)
def small(split): return Set([MAP[:5]], NAMES)
def beyond(split): return Set([MAP + 1], NAMES)
def rows(split): return Set([[1.5, -2], np.array([3, 4])], ["angle", "level"])
def uneven(split): return Set([[1.5, -2], [3.0]])
def empty(split): return Set([[1.5, float("nan")]])
def words(split): return Set([{**BOX, "labels": ["a", "b"]}], NAMES)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "truths_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("truths_of_mine", None)
    yield "truths_of_mine"
    sys.modules.pop("truths_of_mine", None)


def made(module: str, function: str, out: Path) -> data.Images:
    return data.materialise(f"{module}:{function}", "test", (8, 8), 3, {}, out)


def test_boxes(module: str, tmp_path: Path) -> None:
    named, bare = (made(module, name, tmp_path / name) for name in ("boxes", "unnamed"))
    assert (named.classes, bare.classes) == (("cat", "dog"), ("0", "1"))
    assert named.truth[0].boxes.tolist() == [[1, 2, 11, 12], [5, 5, 30, 9.5]]
    assert (named.truth[0].index.tolist(), len(named.truth[1])) == ([1, 0], 0)
    assert bare.truth[1].crowd.tolist() == [False, True]
    assert bare.truth[1].area.tolist() == [50, 60]
    prints = {data.fingerprint(f"{module}:{name}", "test") for name in ("boxes", "unnamed")}
    assert len(prints) == 2


def test_maps(module: str, tmp_path: Path) -> None:
    images = made(module, "maps", tmp_path / "out")
    assert images.classes == ("0", "1")
    assert np.unique(images.truth[0]).tolist() == [0, 1]
    assert np.unique(images.truth[1]).tolist() == [1, 255]


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("mixed", "item 1: is labelled by a number, item 0 by a map"),
        ("far", "a box is of class 2"),
        ("odd", "has 2 boxes and 1 labels"),
        ("small", "the map is int64 "),
        ("beyond", "a pixel is of class 2"),
        ("words", "are no numbers"),
    ],
)
def test_what_is_wrong_is_named(module: str, function: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line):
        made(module, function, tmp_path / "out")


def test_rows_of_numbers(module: str, tmp_path: Path) -> None:
    found = made(module, "rows", tmp_path / "rows")
    assert (found.kind, found.classes) == ("Numbers", ("angle", "level"))
    assert found.truth.values.tolist() == [[1.5, -2], [3, 4]]
    with pytest.raises(DataError, match="item 1: has 1 numbers, not 2"):
        made(module, "uneven", tmp_path / "uneven")
    with pytest.raises(DataError, match="item 0: holds NaN or infinity"):
        made(module, "empty", tmp_path / "empty")
