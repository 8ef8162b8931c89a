"""Images without labels: found, spread, fingerprinted by content, and never called accuracy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.data import plain
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, flat and nested, of different sizes, and what is none."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b.jpg", "deep/c.PNG", "deep/er/d.bmp", "deep/er/e.webp"]):
        pixels = np.full((10 + i, 20, 3), 40 * i, np.uint8)
        image.fromarray(pixels).save(root / name)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


def test_images_of_every_depth_are_found(folder: Path) -> None:
    found = data.parse(f"images:{folder}").items("train")
    assert (found.count, found.classes, found.channels) == (5, (), 3)
    shapes = [found.item(i)[0].shape for i in range(5)]
    assert shapes == [(10 + i, 20, 3) for i in range(5)]
    assert {found.item(i)[1] for i in range(5)} == {0}


def test_they_become_images_without_classes(folder: Path, tmp_path: Path) -> None:
    made = data.materialise(
        f"images:{folder}",
        "train",
        (8, 8),
        3,
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        tmp_path / "out",
    )
    assert (made.pixels.shape, made.classes) == ((5, 8, 8, 3), ())
    assert abs(int(made.pixels[2].mean()) - 80) <= 1
    assert made.labels.tolist() == [0] * 5


def test_both_splits_are_the_same_images(folder: Path) -> None:
    source = f"images:{folder}"
    assert data.fingerprint(source, "train") == data.fingerprint(source, "test")


def test_the_fingerprint_is_of_names_and_content(folder: Path, tmp_path: Path) -> None:
    before = data.fingerprint(f"images:{folder}", "train")
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("other notes")
    assert data.fingerprint(f"images:{moved}", "train") == before
    (moved / "a.png").rename(moved / "z.png")
    renamed = data.fingerprint(f"images:{moved}", "train")
    assert renamed != before
    image.new("RGB", (5, 5)).save(moved / "z.png")
    assert data.fingerprint(f"images:{moved}", "train") not in (before, renamed)


def test_of_too_many_an_even_spread_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MOST", 3)
    found = data.parse(f"images:{folder}").items("train")
    assert [found.item(i)[0].shape[0] for i in range(found.count)] == [10, 12, 14]
    before = data.fingerprint(f"images:{folder}", "train")
    (folder / "a.png").unlink()  # 4 left: others are chosen now
    assert data.fingerprint(f"images:{folder}", "train") != before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("images:", "names no path"),
        ("images:no/such/folder", "no such folder"),
        ("synthetic:0", "unknown source"),
        ("synthetic:many", "unknown source|no module named"),
        ("synthetic:-3", "unknown source"),
        ("synthetic:²", "unknown source"),
    ],
)
def test_what_is_no_source_is_a_data_error(source: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        data.parse(source).items("train")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    for step in (plain.items, plain.fingerprint):
        with pytest.raises(DataError, match="holds no images"):
            step(f"images:{tmp_path}", "train")


def test_a_broken_image_is_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "deep" / "c.PNG"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"c\.PNG"):
        data.materialise(
            f"images:{folder}",
            "train",
            (8, 8),
            3,
            {"crop_pct": 1.0, "interpolation": "nearest"},
            tmp_path / "out",
        )


def test_made_up_images_are_the_same_every_time() -> None:
    found = data.parse("synthetic:4").items("train")
    assert (found.count, found.classes) == (4, ())
    first, second = found.item(0)[0], found.item(1)[0]
    assert (first.shape, first.dtype) == ((256, 256, 3), np.uint8)
    assert np.array_equal(first, plain.smooth_noise(0))
    assert not np.array_equal(first, second)
    assert (first.min(), first.max()) == (0, 255)
    assert data.fingerprint("synthetic:4", "train") != data.fingerprint("synthetic:5", "train")


def test_made_up_images_are_smooth_as_photographs_are() -> None:
    pixels = plain.smooth_noise(3).astype(float)
    neighbours = np.abs(np.diff(pixels, axis=1)).mean()
    anything = np.abs(pixels - pixels[:, ::-1]).mean()
    assert neighbours < 0.5 * anything


def test_a_parted_folder_judges_on_images_that_are_not_calibrated_on(folder: Path) -> None:
    whole = data.parse(f"images:{folder}").items("train").count
    parts = {s: data.parse(f"parted:{folder}").items(s).count for s in ("train", "test")}
    assert sum(parts.values()) == whole
    assert parts["test"] == len(range(1, whole, 3))
    marks = {s: data.fingerprint(f"parted:{folder}", s) for s in ("train", "test")}
    assert marks["train"] != marks["test"]
    assert data.fingerprint(f"images:{folder}", "train") not in marks.values()
