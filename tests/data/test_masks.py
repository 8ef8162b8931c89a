"""Index PNGs beside images: what they say of each pixel, and what is wrong with them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.data.annotations import IGNORED
from edgecv.data.files import tell
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def _afresh() -> None:
    tell.cache_clear()


def picture(root: Path, name: str, mask: np.ndarray, palette: bool = False) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*mask.shape[:2], 3), np.uint8)
    image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
    made = image.fromarray(mask)
    if palette:
        made.putpalette([(37 * k) % 256 for k in range(768)])
    made.save(root / "masks" / f"{name}.png")


MASK = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)


@pytest.mark.parametrize("palette", [False, True])
def test_maps_are_the_files(tmp_path: Path, palette: bool) -> None:
    picture(tmp_path, "a", MASK, palette)
    picture(tmp_path, "b", MASK[:1], palette)
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\n")
    source = f"masks:{tmp_path}"
    made = data.materialise(source, "test", (8, 8), 3, {}, tmp_path / "out")
    assert (made.classes, data.parse(source).truth) == (("road", "sky", "car"), "Maps")
    assert made.truth[0].tolist() == MASK.tolist()
    assert made.truth[1].tolist() == MASK[:1].tolist()


def test_a_class_called_unlabelled_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "train", "a", MASK)
    picture(tmp_path / "val", "a", MASK[:1])
    (tmp_path / "classes.txt").write_text("road\nVoid\ncar\n")
    with caplog.at_level(logging.WARNING):
        made = data.materialise(f"masks:{tmp_path}", "train", (8, 8), 3, {}, tmp_path / "out")
    assert made.classes == ("road", "car")
    assert made.truth[0].tolist() == [[0, IGNORED, 1], [IGNORED, IGNORED, 0]]
    assert "class Void count for nothing" in caplog.text
    for source in (f"masks:{tmp_path}", f"masks:{tmp_path / 'val'}"):
        assert data.parse(source).items("test").item(0)[1].shape == (1, 3)


def test_what_has_no_partner_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        picture(tmp_path, name, MASK)
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "images" / "a.jpg").unlink()
    (tmp_path / "masks" / "b.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert data.parse(f"masks:{tmp_path}").items("test").count == 1
    assert "1 have no mask (b, ...): left out" in caplog.text
    assert "1 have no image (a, ...): left out" in caplog.text


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.zeros((3, 2), np.uint8), "is 3x2, and its image 2x3"),
        (np.full((2, 3), 3, np.uint8), "has index 3, and classes.txt 3 names"),
        (np.zeros((2, 3, 3), np.uint8), r"is of colours \(RGB\), no index image"),
        (np.full((2, 3), 300, np.uint16), "has index 300"),
    ],
)
def test_a_wrong_mask_is_one_line(tmp_path: Path, mask: np.ndarray, line: str) -> None:
    picture(tmp_path, "a", MASK)
    image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    with pytest.raises(DataError, match=line):
        data.materialise(f"masks:{tmp_path}", "test", (8, 8), 3, {}, tmp_path / "out")


def test_a_mask_that_lost_its_indices(tmp_path: Path) -> None:
    picture(tmp_path, "a", MASK)
    (tmp_path / "masks" / "a.png").unlink()
    image.fromarray(MASK).save(tmp_path / "masks" / "a.jpg")
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    with pytest.raises(DataError, match="is JPEG, which does not keep indices"):
        data.materialise(f"masks:{tmp_path}", "test", (8, 8), 3, {}, tmp_path / "out")


def test_what_is_not_there(tmp_path: Path) -> None:
    for line in ("no such folder", "has no folder images", "has no classes.txt", "each once"):
        with pytest.raises(DataError, match=line):
            data.parse(f"masks:{tmp_path / 'set'}").items("test")
        if line == "no such folder":
            (tmp_path / "set").mkdir()
        elif line == "has no folder images":
            picture(tmp_path / "set", "a", MASK)
        else:
            (tmp_path / "set" / "classes.txt").write_text("x\nx\n")


def test_the_fingerprint_covers_masks_and_names(tmp_path: Path) -> None:
    picture(tmp_path, "a", MASK)
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    seen = [data.fingerprint(f"masks:{tmp_path}", "test")]
    (tmp_path / "classes.txt").write_text("x\ny\nw\n")
    seen.append(data.fingerprint(f"masks:{tmp_path}", "test"))
    picture(tmp_path, "a", 2 - MASK.clip(0, 2))
    seen.append(data.fingerprint(f"masks:{tmp_path}", "test"))
    assert len(set(seen)) == 3
