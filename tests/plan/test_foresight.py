"""What a network lacks for its data is told by `plan`, before images are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_fewer_classes_than_the_data_are_told_by_plan(
    edgecv: Callable, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path / "own")
    folder = tmp_path / "own"
    done = edgecv("plan", "tiny.yaml", cwd=folder)
    assert done.code == 0, done.err
    train = folder / "images" / "train"
    count = len(list(train.iterdir()))
    shutil.copytree(next(train.iterdir()), train / "zebra")
    done = edgecv("plan", "tiny.yaml", "--out", "new", cwd=folder)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert f"mynet:make: has {count} outputs and the data {count + 1} classes" in line
    assert not (folder / "new").exists()
