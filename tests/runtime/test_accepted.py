"""What may be given as an image: arrays, floats in 0..1, Pillow images, paths; nothing guessed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import DataError, MissingExtraError
from edgecv.runtime.accepted import as_pixels
from edgecv.runtime.bundle import open_bundle
from edgecv.runtime.preprocess import Preprocess

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_every_form_of_an_image_gives_one_answer(make_bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = open_bundle(make_bundle())
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    want = bundle(PIXELS, None)
    real = PIXELS / 255.0
    for image in (path, str(path), Image.open(path), real, real.astype(np.float32)):
        assert bundle(image, None) == want, type(image)


def test_a_photograph_is_turned_upright_and_a_pillow_image_taken_as_it_lies(tmp_path) -> None:
    path, turned = tmp_path / "a.png", Image.fromarray(PIXELS)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(path, exif=exif)
    assert as_pixels(path, 3).shape == (30, 20, 3)
    assert as_pixels(Image.open(path), 3).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("mode", "channels", "shape"),
    [
        ("L", 1, (20, 30)), ("L", 3, (20, 30)), ("1", 1, (20, 30)), ("P", 3, (20, 30, 3)),
        ("RGBA", 3, (20, 30, 3)), ("RGBA", 4, (20, 30, 4)), ("LA", 2, (20, 30, 2)),
        ("CMYK", 3, (20, 30, 3)), ("CMYK", 4, (20, 30, 4)), ("RGB", 1, (20, 30)),
    ],
)  # fmt: skip
def test_modes_of_pillow(mode: str, channels: int, shape: tuple[int, ...]) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    got = as_pixels(image, channels)
    assert (got.dtype, got.shape) == (np.uint8, shape)
    if image.mode in ("L", "RGBA", "LA", "CMYK") and len(image.getbands()) == channels:
        np.testing.assert_array_equal(got, np.asarray(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pillow_image_is_what_its_array_is(channels: int) -> None:
    pre = Preprocess((16, 16), channels, (0.0,), (1.0,))
    np.testing.assert_array_equal(pre(Image.fromarray(PIXELS)), pre(PIXELS))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_a_mode_without_a_white_is_refused(mode: str) -> None:
    with pytest.raises(DataError, match="does not say which number is white"):
        as_pixels(Image.new(mode, (4, 4)), 3)


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 4), ("L", 2), ("P", 2), ("RGB", 5), ("RGBA", 2)]
)
def test_channels_that_are_not_there_are_not_made_up(mode: str, channels: int) -> None:
    with pytest.raises(DataError, match=f"has no {channels} channels"):
        as_pixels(Image.fromarray(PIXELS).convert(mode), channels)


@pytest.mark.parametrize("value", [1.001, 255.0, -0.01, float("nan"), float("inf")])
def test_floats_beyond_one_are_refused(value: float) -> None:
    image = np.full((4, 4, 3), 0.5)
    image[1, 2, 0] = value
    with pytest.raises(DataError, match=r"not within 0\.\.1"):
        as_pixels(image, 3)


def test_floats_are_rounded_to_the_nearest_pixel() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for kind in (np.float16, np.float32, np.float64):
        got = as_pixels((every / 255.0).astype(kind), 1)
        assert np.abs(got.astype(int) - every).max() <= (kind is np.float16)
    np.testing.assert_array_equal(as_pixels((every / np.float32(255)), 1), every)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, bool, np.complex64, object])
def test_other_numbers_are_refused(kind) -> None:
    with pytest.raises(DataError, match="is not uint8"):
        as_pixels(np.zeros((4, 4, 3), kind), 3)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(DataError, match="PostScript"):
        as_pixels(tmp_path / "a.png", 3)
    with pytest.raises(DataError, match="no such file"):
        as_pixels(str(tmp_path / "b.png"), 3)


def test_a_path_without_pillow_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pillow is not installed"):
        as_pixels(tmp_path / "a.png", 3)


def test_a_path_on_a_device_that_has_no_decoder_is_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "edgecv.data.decode", None)
    with pytest.raises(MissingExtraError, match="which is not here"):
        as_pixels(tmp_path / "a.png", 3)
