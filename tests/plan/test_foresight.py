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


@pytest.mark.parametrize("command", ["plan"])
def test_a_pruning_that_removes_nothing_is_told_before_training(
    edgecv: Callable, project: Path, tmp_path: Path, command: str
) -> None:
    done = edgecv(command, "tiny.yaml", "--set", "prune.ratio=0.01", "--out", tmp_path, cwd=project)
    assert done.code == 2
    assert "small: ratio 0.01 removes nothing: widths" in done.err
    assert "dense" not in done.err
