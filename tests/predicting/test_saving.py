"""Names of results, and that nothing that is read is written over."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import RecipeError, StoreError
from edgecv.predicting.saving import Kept
from edgecv.predicting.sources import Picture

pytest.importorskip("PIL")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def picture(place: str, frame: int | None = None) -> Picture:
    return Picture(place, Path(place), partial(np.asarray, PIXELS), frame, frame and frame / 25)


@pytest.mark.parametrize(
    ("read", "frame", "arrays", "name"),
    [
        ("cat.jpg", None, False, "cat.jpg"),
        ("deep/cat.PNG", None, False, "deep/cat.PNG"),
        ("scan.tif", None, False, "scan.tif.png"),
        ("cat.jpg", None, True, "cat.jpg.npz"),
        ("clip.mov", 3, False, "clip.mov.mp4"),
        ("clip.mp4", 3, False, "clip.mp4"),
        ("clip.mp4", 3, True, "clip.mp4-000003.npz"),
    ],
)
def test_names(tmp_path: Path, read: str, frame: int | None, arrays: bool, name: str) -> None:
    assert Kept(tmp_path, [], arrays).path(picture(read, frame)) == tmp_path / name


def test_two_of_one_name_do_not_collide(tmp_path: Path) -> None:
    kept = Kept(tmp_path, [], False)
    names = [kept.path(picture(n)).name for n in ("a.jpg", "a.png", "a.jpg", "a.tif.png", "a.tif")]
    assert names == ["a.jpg", "a.png", "a-2.jpg", "a.tif.png", "a.tif-2.png"]


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    original, linked = tmp_path / "cat.jpg", tmp_path / "out" / "cat.jpg"
    original.write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    linked.symlink_to(original)
    for folder in (tmp_path, tmp_path / "out"):
        with pytest.raises(RecipeError, match="which is read"):
            Kept(folder, [original], False).path(picture("cat.jpg"))


def test_what_cannot_be_written_is_told_by_its_name(tmp_path: Path) -> None:
    kept = Kept(tmp_path, [], False)
    path = kept.path(picture("cat.png"))
    path.mkdir()
    (path / "full").touch()
    with pytest.raises(StoreError) as error:
        kept.picture(path, PIXELS)
    assert (
        str(error.value)
        == f"{path}: cannot be written: Is a directory (give --save another folder)"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["cat.png"], "nothing half written is left"
    (tmp_path / "deep").write_text("")
    for write in (kept.film, lambda p: kept.picture(p, PIXELS)):
        with pytest.raises(StoreError, match="cannot be written"):
            write(tmp_path / "deep" / "cat.png")


def test_a_folder_that_cannot_be_made_or_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Kept(tmp_path / "file" / "out", [], False)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(StoreError, match="cannot be written to"):
        Kept(tmp_path / "out", [], False)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Kept(tmp_path / "out", [], False)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "deep/a.jpg", "a.webp"])
def test_pictures_are_written_as_they_are_called(tmp_path: Path, name: str) -> None:
    from PIL import Image

    kept = Kept(tmp_path / "new", [], False)
    path = kept.path(picture(name))
    kept.picture(path, PIXELS)
    with Image.open(path) as written:
        assert written.format == {"jpg": "JPEG"}.get(path.suffix[1:], path.suffix[1:].upper())
        if path.suffix in (".png", ".bmp"):
            assert (np.asarray(written) == PIXELS).all()
    assert list(path.parent.iterdir()) == [path]  # and nothing half


def test_arrays_come_back_by_their_names(tmp_path: Path) -> None:
    arrays = {"file": np.arange(6.0).reshape(2, 3), "head/0": np.ones((1, 4), np.int8)}
    kept = Kept(tmp_path, [], True)
    path = kept.path(picture("cat.jpg"))
    kept.arrays(path, arrays)
    with np.load(path, allow_pickle=False) as held:
        assert set(held) == set(arrays)
        assert all((held[k] == v).all() and held[k].dtype == v.dtype for k, v in arrays.items())
