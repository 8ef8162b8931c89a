"""What a word on the command line names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import DataError
from edgecv.predicting.sources import source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i, name in enumerate(("b.npy", "a.npy", "deep/c.npy")):
        np.save(tmp_path / "in" / name, np.full((4, 5, 3), i, np.uint8))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def test_a_folder_gives_its_pictures_by_name(folder: Path) -> None:
    found = source(str(folder), 3)
    pictures = list(found.pictures())
    assert [p.place.as_posix() for p in pictures] == ["a.npy", "b.npy", "deep/c.npy"]
    assert [int(p.load()[0, 0, 0]) for p in pictures] == [1, 0, 2]
    assert (found.count, found.film) == (3, False)


def test_a_folder_of_results_within_is_left_out(folder: Path) -> None:
    found = source(str(folder), 3, apart=folder / "deep")
    assert [p.place.name for p in found.pictures()] == ["a.npy", "b.npy"]
    with pytest.raises(DataError, match="is read and written"):
        source(str(folder), 3, apart=folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("never.png", "no such file"),
        ("notes.txt", r"of \.txt, is no image or film by its name"),
        ("camera:99", r"no such camera: /dev/video99"),
        ("empty", "holds no images"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, name: str, said: str) -> None:
    (folder / "empty").mkdir()
    text = name if ":" in name else str(folder / name)
    with pytest.raises(DataError, match=said):
        source(text, 3)
