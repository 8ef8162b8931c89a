"""Bundles and Model folders for the commands to work on, made by the commands themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Shelf:
    """fp32 and int8 bundles of one network for the cpu target, and the folder with mynet.py."""

    folder: Path
    fp32: Path
    int8: Path


@pytest.fixture(scope="session")
def shelf(project: Path, edgecv: Callable, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("shelf")
    for precision in ("fp32", "int8"):
        done = edgecv(
            "export", "mynet:make", "--target", "cpu", "--precision", precision, "--input-size",
            "24", "--calibration", "images/train", "--name", precision, "--out", out, cwd=project,
        )  # fmt: skip
        assert done.code == 0, done.err
    return Shelf(project, out / "fp32.edgecv", out / "int8.edgecv")


@pytest.fixture(scope="session")
def model_folder(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model folder of mynet:make, with its own mean, crop and labels, saved by edgecv."""
    torch = pytest.importorskip("torch")
    from edgecv.models.model import Model
    from edgecv.runtime.preprocess import Preprocess

    folder = tmp_path_factory.mktemp("models") / "mine"
    preprocess = Preprocess((24, 24), 3, (120.0,), (60.0,), crop_pct=0.9, interpolation="bilinear")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project))
        torch.manual_seed(0)
        model = Model("mynet:make", {"width": 16}, (), preprocess.to_json(), ("ant", "bee", "cat"))
        model.save(folder, model.build())
    return folder


@pytest.fixture
def damaged(shelf: Shelf, tmp_path: Path) -> Path:
    """The fp32 bundle with one bit of a weight flipped: still a zip, its digest is wrong."""
    path = Path(shutil.copyfile(shelf.fp32, tmp_path / "damaged.edgecv"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    return path
