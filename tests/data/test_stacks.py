"""Images of other channels than 1 and 3: arrays, pages, transparency."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgecv import data
from edgecv.data.decode import Notes, decode
from edgecv.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 6), dtype=np.uint8)


def pages(path, arrays) -> None:
    first, *rest = (Image.fromarray(a) for a in arrays)
    first.save(path, save_all=True, append_images=rest)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_an_array_is_read_as_it_is(tmp_path, channels) -> None:
    np.save(tmp_path / "a.npy", PIXELS[..., :channels])
    np.testing.assert_array_equal(decode(tmp_path / "a.npy", channels), PIXELS[..., :channels])


def test_a_flat_array_is_grey(tmp_path) -> None:
    np.save(tmp_path / "a.npy", PIXELS[..., 0])
    np.testing.assert_array_equal(decode(tmp_path / "a.npy"), PIXELS[..., :1])


def test_sixteen_bits_keep_the_high_byte_and_are_told_where_dark(tmp_path) -> None:
    notes, deep = Notes(), PIXELS.astype(np.uint16) << 4
    np.save(tmp_path / "a.npy", deep)
    np.testing.assert_array_equal(decode(tmp_path / "a.npy", 6, notes), deep >> 8)
    assert "12-bit data" in notes.sentences()[0]


def test_floats_are_of_zero_to_one(tmp_path) -> None:
    np.save(tmp_path / "a.npy", (PIXELS / 255).astype(np.float32))
    np.testing.assert_array_equal(decode(tmp_path / "a.npy", 6), PIXELS)
    np.save(tmp_path / "a.npy", PIXELS.astype(np.float32))
    with pytest.raises(DataError, match=r"a\.npy: floats reach .* not within 0\.\.1"):
        decode(tmp_path / "a.npy", 6)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4), np.int32), "which is black"),
        (np.zeros((4, 4, 2), bool), "which is black"),
        (np.zeros(4, np.uint8), "no image"),
        (np.zeros((0, 4), np.uint8), "no image"),
        (np.array([[{}]], object), "Python objects"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, said) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=said) as e:
        decode(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in e.value.where


@pytest.mark.parametrize("cut", [0, 5, 40, 128, 200])
def test_a_truncated_array_is_refused(tmp_path, cut) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:cut])
    with pytest.raises(DataError):
        decode(tmp_path / "a.npy", 6)


def test_an_array_that_announces_more_than_it_holds_is_not_unpacked(tmp_path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        huge = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
        np.lib.format.write_array_header_1_0(file, huge)
    with pytest.raises(DataError, match="and holds 0 bytes"):
        decode(tmp_path / "a.npy")


@pytest.mark.parametrize("deep", [False, True])
def test_a_page_a_channel(tmp_path, deep) -> None:
    arrays = [PIXELS[..., c] for c in range(6)]
    if deep:
        arrays = [a.astype(np.uint16) << 8 for a in arrays]
    pages(tmp_path / "a.tif", arrays)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", 6), PIXELS)
    with pytest.raises(DataError, match="has 6 pages, and 4 channels are asked for"):
        decode(tmp_path / "a.tif", 4)
    notes = Notes()
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", 1, notes), PIXELS[..., :1])
    assert "1 files have several pages: the first is used" in notes.sentences()


def test_pages_of_two_sizes_or_in_colour_are_refused(tmp_path) -> None:
    pages(tmp_path / "a.tif", [PIXELS[..., 0], PIXELS[:5, :, 1]])
    with pytest.raises(DataError, match="page 2 is not of the first one's size"):
        decode(tmp_path / "a.tif", 2)
    pages(tmp_path / "b.tif", [PIXELS[..., 0], PIXELS[..., :3]])
    with pytest.raises(DataError, match="page 2 is of mode RGB, not grey"):
        decode(tmp_path / "b.tif", 2)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2), ("CMYK", 4)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_samples_of_one_page(tmp_path, mode, channels, suffix) -> None:
    if (mode, suffix) == ("CMYK", ".png"):
        pytest.skip("PNG has no CMYK")
    pixels = np.ascontiguousarray(PIXELS[..., :channels])
    image = Image.frombytes(mode, (10, 12), pixels.tobytes())
    image.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(decode(tmp_path / f"a{suffix}", channels), pixels)


def test_channels_that_are_not_in_the_file_are_not_made_up(tmp_path) -> None:
    Image.fromarray(PIXELS[..., :3].copy()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is of mode RGB, 3 channels, not 4") as e:
        decode(tmp_path / "a.png", 4)
    assert ".npy array (H, W, 4)" in e.value.hint


def test_a_folder_of_arrays_becomes_images_of_their_channels(tmp_path) -> None:
    for kind in ("a", "b"):
        (tmp_path / "in" / kind).mkdir(parents=True)
        np.save(tmp_path / "in" / kind / "1.npy", PIXELS)
    how = {"resize": "letterbox", "pad_at": "corner", "interpolation": "bilinear"}
    for kind in ("imagefolder", "images"):
        made = data.materialise(
            f"{kind}:{tmp_path / 'in'}", "train", (12, 16), 6, how, tmp_path / kind
        )
        assert made.pixels.shape == (2, 12, 16, 6)
        np.testing.assert_array_equal(made.pixels[1, :, :10], PIXELS)
        assert (made.pixels[:, :, 10:] == 114).all()
    with pytest.raises(DataError, match=r"\(12, 10, 6\) is not an image"):
        data.materialise(f"images:{tmp_path / 'in'}", "train", (8, 8), 3, {}, tmp_path / "out")


def test_made_up_images_have_the_channels_of_the_network(tmp_path) -> None:
    made = data.materialise("synthetic:2", "train", (8, 8), 5, {}, tmp_path / "out")
    assert made.pixels.shape == (2, 8, 8, 5)
    assert len({made.pixels[0, ..., c].tobytes() for c in range(5)}) == 5


def test_images_that_are_not_to_be_resized_have_the_size(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "1.npy", PIXELS[..., :3])
    how = {"resize": "none"}
    source = f"images:{tmp_path / 'in'}"
    made = data.materialise(source, "train", (12, 10), 3, how, tmp_path / "out")
    np.testing.assert_array_equal(made.pixels[0], PIXELS[..., :3])
    with pytest.raises(DataError, match="item 0: is 12x10, and this network takes 10x12 unresized"):
        data.materialise(source, "train", (10, 12), 3, how, tmp_path / "out")
    made_up = data.materialise("synthetic:1", "train", (10, 12), 3, how, tmp_path / "out")
    assert made_up.pixels.shape == (1, 10, 12, 3)


def test_an_image_among_arrays_keeps_its_channels(tmp_path) -> None:
    images, state = np.stack([PIXELS, 255 - PIXELS]), np.float32([[1, 2], [3, 4]])
    np.savez(tmp_path / "a.npz", image=images, state=state)
    made = data.materialise(
        f"arrays:{tmp_path / 'a.npz'}", "train", (12, 10), 6, {"resize": "none"}, tmp_path / "out"
    )
    np.testing.assert_array_equal(made.pixels, images)
    np.testing.assert_array_equal(made.arrays["state"], state)
