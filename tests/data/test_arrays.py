"""Arrays for a network's inputs, and stacks of images: parted without overlap, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Ten samples: an image and four numbers, both of which say which sample it is."""
    numbers = np.arange(10)
    pixels = np.full((10, 8, 8, 3), numbers[:, None, None, None], np.uint8)
    state = np.repeat(numbers[:, None], 4, 1).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=pixels, state=state)
    return tmp_path / "samples.npz"


def made(source: str, split: str, out: Path) -> data.Images:
    return data.materialise(source, split, (8, 8), 3, {"crop_pct": 1.0}, out / split)


def test_parted_samples_are_in_one_split_each_with_all_their_arrays(
    file: Path, tmp_path: Path
) -> None:
    found = {s: made(f"parted:{file}", s, tmp_path) for s in ("train", "test")}
    rows = {split: images.arrays["state"][:, 0].tolist() for split, images in found.items()}
    assert rows == {"train": [0, 2, 3, 5, 6, 8, 9], "test": [1, 4, 7]}
    for split, images in found.items():
        assert images.pixels[:, 0, 0, 0].tolist() == rows[split]
        assert images.classes == ()


def test_arrays_are_whole_in_both_splits(file: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        assert len(made(f"arrays:{file}", split, tmp_path)) == 10


def test_too_few_to_part_are_in_both(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 8, 8, 3), np.uint8))
    for split in ("train", "test"):
        assert len(made(f"parted:{tmp_path / 'two.npy'}", split, tmp_path)) == 2


def test_a_stack_of_images_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    np.save(tmp_path / "grey.npy", pixels)
    source = data.parse(f"arrays:{tmp_path / 'grey.npy'}")
    assert not source.labelled
    found = source.items("train")
    assert [np.array_equal(found.item(i)[0], pixels[i]) for i in range(6)] == [True] * 6


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((6, 3, 8, 8), np.float32), "numpy.savez(path, NAME=array)"),
        (np.zeros(6, np.uint8), "no images"),
        (np.array([{}]), "damaged"),
        (None, "damaged"),
    ],
)
def test_what_is_no_stack_of_images_is_refused(
    array: np.ndarray | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npy"
    if array is None:
        path.write_bytes(b"no array")
    else:
        np.save(path, array)
    with pytest.raises(DataError) as e:
        data.parse(f"parted:{path}").items("train")
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("no.npz", "no.npy"):
        for kind in ("arrays", "parted"):
            source = f"{kind}:{tmp_path / name}"
            for asked in (data.fingerprint, lambda s, split: data.parse(s).items(split)):
                with pytest.raises(DataError) as e:
                    asked(source, "train")
                assert str(e.value).startswith(f"{tmp_path / name}: no such file")
