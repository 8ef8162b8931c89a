"""Where results go is looked at before the work: nothing is made, and one sentence says no."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.errors import StoreError
from edgecv.files import check_file, check_folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("kept")
    return path


def left(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "deep" / "down")
    check_file(tmp_path / "new.xml", "--junit")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file", "is a file, not a folder"),
        ("file/below", "cannot be made: .*file is a file, not a folder"),
        ("file/below/that", "cannot be made: .*file is a file, not a folder"),
        ("link", "is a file, not a folder"),
    ],
)
def test_what_can_be_no_folder(tmp_path: Path, file: Path, name: str, said: str) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    before = left(tmp_path)
    with pytest.raises(StoreError, match=f"{name}: {said}.*give --out another folder"):
        check_folder(tmp_path / name)
    assert left(tmp_path) == before
    assert file.read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is a folder, not a file"),
        ("nowhere/x", "its folder is not there .mkdir -p .*nowhere"),
        ("file/x", "is a file, not a folder"),
        ("file/y/x", "its folder is not there .give --junit another file"),
    ],
)
@pytest.mark.parametrize("appends", [False, True])
def test_what_can_be_no_file(
    tmp_path: Path, file: Path, name: str, said: str, appends: bool
) -> None:
    with pytest.raises(StoreError, match=said):
        check_file(tmp_path / name, "--junit", appends)
    assert left(tmp_path) == [file]


def test_what_may_not_be_written_to(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is added to is asked itself; another's folder."""
    allowed: Callable[[object], bool] = lambda path: Path(str(path)) == file  # noqa: E731
    monkeypatch.setattr(os, "access", lambda path, _: allowed(path))  # root may write anywhere
    check_file(file, "--summary", appends=True)
    with pytest.raises(StoreError, match="its folder cannot be written to"):
        check_file(file, "--junit")
    with pytest.raises(StoreError, match=r"new: cannot be made: .* cannot be written to"):
        check_folder(tmp_path / "new")
    with pytest.raises(StoreError, match="cannot be written to"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "gate {fast} {fast} --junit taken/x.xml",
        "gate {fast} {fast} --summary taken/x.md",
        "gate taken/b.json {fast} --update",
        "predict {fast} {photos} --save taken/x",
        "export mynet:make --target cpu --input-size 24 --out taken/x",
        "run tiny.yaml --out taken/x",
        "report {run} --out taken/x.html",
    ],
)
def test_every_command_looks_before_the_work(
    edgecv: Callable, finished, tmp_path: Path, command: str
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    fast = next((finished.out / "bundles").glob("*.edgecv"))
    photos = finished.folder / "images" / "test"
    words = command.format(fast=fast, photos=photos, run=finished.out).split()
    words = [word.replace("taken", str(taken)) for word in words]
    done = edgecv(*words, cwd=finished.folder)
    assert done.code == 2, done.out
    (line,) = [x for x in done.err.splitlines() if not x.startswith("note")]
    assert line.startswith("error: ")
    assert "is a file, not a folder" in line
    assert "another fi" in line or "another folder" in line
    assert left(tmp_path) == [taken]
    assert taken.read_text() == "mine"
    assert done.out == ""
