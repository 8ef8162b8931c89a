"""Preprocessing equals Pillow's and torchvision's, pixel for pixel, and refuses what it cannot."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import DataError
from edgecv.runtime.preprocess import Preprocess

Image = pytest.importorskip("PIL.Image")
FILTERS = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "nearest": Image.NEAREST}


def pillow(pixels: np.ndarray, size: int, pct: float, how: str, channels: int) -> np.ndarray:
    """torchvision's Resize(floor(size / pct)) and CenterCrop(size), written with Pillow."""
    image = Image.fromarray(pixels).convert("RGB" if channels == 3 else "L")
    w, h = image.size
    side = math.floor(size / pct)
    new = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    if new != (w, h):
        image = image.resize(new, FILTERS[how])
    left, top = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    out = np.asarray(image.crop((left, top, left + size, top + size)))
    return out if channels == 3 else out[..., None]


def photo(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """Edges, gradients and noise: what a resampler can get wrong."""
    y, x = np.mgrid[:height, :width]
    waves = 120 + 100 * np.sin(x / 7.0) * np.cos(y / 5.0) + 30 * (x > width // 2)
    noisy = waves[..., None] + rng.normal(0, 25, (height, width, max(channels, 1)))
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 0 else pixels


def plain(size: int = 8, channels: int = 3, **changes) -> Preprocess:
    return Preprocess((size, size), channels, (0.0,), (1.0,), **changes)


@pytest.mark.parametrize("how", list(FILTERS))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width"),
    [(300, 400), (400, 300), (28, 28), (20, 31), (720, 405), (1, 1), (5, 90), (256, 256)],
)
@pytest.mark.parametrize("pct", [0.875, 1.0])
def test_geometry_is_pillows(how: str, channels: int, height: int, width: int, pct: float) -> None:
    rng = np.random.default_rng(height * width)
    for size in (28, 33, 224):
        for kind in (0, 3, 4):
            image = photo(rng, height, width, kind)
            got = plain(size, channels, crop_pct=pct, interpolation=how).geometry(image)
            np.testing.assert_array_equal(got, pillow(image, size, pct, how, channels))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.integers(1, 64),
    st.sampled_from([0.5, 0.875, 0.9, 1.0]),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(0, 2**32 - 1),
)
def test_geometry_is_pillows_on_noise(h: int, w: int, size: int, pct: float, how, seed) -> None:
    h = min(h, 2 * w)  # taller than this, Pillow 13 changes the order of its two passes
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    got = plain(size, 3, crop_pct=pct, interpolation=how).geometry(image)
    np.testing.assert_array_equal(got, pillow(image, size, pct, how, 3))


def test_a_tall_photo_is_within_two_levels_of_any_pillow() -> None:
    image = photo(np.random.default_rng(0), 2400, 1080, 3)
    got = plain(224).geometry(image)
    want = pillow(image, 224, 0.875, "bicubic", 3)
    assert np.abs(got.astype(int) - want).max() <= 2


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0, 1, 3, 4]),
    st.sampled_from([1, 3]),
    st.floats(0.3, 1.0),
    st.sampled_from(list(FILTERS)),
    st.integers(0, 255),
)
def test_a_constant_image_stays_constant(shape, size, kind, channels, pct, how, value) -> None:
    image = np.full((*shape, kind) if kind else shape, value, np.uint8)
    pre = Preprocess(size, channels, (0.0,), (1.0,), crop_pct=pct, interpolation=how)
    got = pre.geometry(image)
    assert got.shape == (*size, channels)
    assert got.dtype == np.uint8
    assert (got == value).all()


def test_resizing_keeps_left_right_symmetry() -> None:
    half = np.random.default_rng(1).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    got = plain(24, crop_pct=1.0).geometry(image)
    np.testing.assert_array_equal(got, got[:, ::-1])


def test_views_and_order_in_memory_do_not_matter() -> None:
    image = photo(np.random.default_rng(2), 90, 70, 3)
    pre = plain(32)
    want = pre.geometry(image)
    np.testing.assert_array_equal(pre.geometry(np.asfortranarray(image)), want)
    np.testing.assert_array_equal(pre.geometry(np.flip(image.copy()[:, ::-1], 1)), want)


def test_the_exact_size_is_not_copied_and_is_never_written() -> None:
    image = photo(np.random.default_rng(3), 8, 8, 3)
    pre = plain(8, crop_pct=1.0)
    assert pre.geometry(image) is image
    before = image.copy()
    pre(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_values(layout: str, channels: int) -> None:
    mean, std = (10.0, 127.0, 200.0)[:channels], (1.0, 128.0, 58.4)[:channels]
    pre = Preprocess((6, 9), channels, mean, std, layout=layout)
    batch = np.random.default_rng(4).integers(0, 256, (2, 6, 9, channels), dtype=np.uint8)
    got = pre.normalise(batch)
    want = (batch.astype(np.float64) - mean) / std
    want = want.transpose(0, 3, 1, 2) if layout == "NCHW" else want
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(pre.normalise(batch[0]), got[:1])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("mean", [(127.0,), (100.0, 127.0, 150.0)])
def test_integer_values(layout: str, dtype: str, mean: tuple[float, ...]) -> None:
    grid = {"scale": 0.013, "zero_point": 3 if dtype == "int8" else 120}
    pre = Preprocess((7, 5), 3, mean, (64.0,), layout=layout, dtype=dtype, **grid)
    batch = np.random.default_rng(5).integers(0, 256, (2, 7, 5, 3), dtype=np.uint8)
    limits = np.iinfo(dtype)
    real = (batch.astype(np.float64) - mean) / 64.0
    want = np.clip(np.rint(real / 0.013) + grid["zero_point"], limits.min, limits.max)
    want = want.transpose(0, 3, 1, 2) if layout == "NCHW" else want
    got = pre.normalise(batch)
    assert got.dtype == np.dtype(dtype)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)
    assert (got == limits.max).any()  # the clip was reached


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 127), ("int8", -1)])
def test_the_grid_of_whole_pixels(layout: str, dtype: str, zero_point: int) -> None:
    grid = {"dtype": dtype, "scale": 1 / 128, "zero_point": zero_point}
    pre = Preprocess((4, 5), 3, (127.0,), (128.0,), layout=layout, **grid)
    image = np.random.default_rng(6).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    want = (image.astype(int) - 127 + zero_point)[None]
    got = pre.normalise(image)
    assert got.dtype == np.dtype(dtype)
    assert not np.shares_memory(got, image)
    np.testing.assert_array_equal(got, want.transpose(0, 3, 1, 2) if layout == "NCHW" else want)


def test_json_round_trip() -> None:
    pre = Preprocess((224, 192), 3, (1.5, 2, 3), (4, 5, 6), 0.9, "nearest", "NHWC", "int8", 0.1, -3)
    text = json.dumps(pre.to_json())
    assert Preprocess.from_json(json.loads(text)) == pre
    assert "scale" not in plain().to_json()


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.full((4, 4, 3), 255, np.float32), "not within 0..1"),
        (np.full((4, 4, 3), np.nan), "not within 0..1"),
        (np.zeros((4, 4, 3), np.int32), "dtype int32"),
        (np.zeros((4, 4, 2), np.uint8), "shape (4, 4, 2)"),
        (np.zeros((3, 40, 40), np.uint8), "transpose"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one image at a time"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros(4, np.uint8), "shape (4,)"),
        ([[1, 2], [3, 4]], "list is not an array"),
        (None, "NoneType is not an array"),
    ],
)
def test_what_is_no_image_is_refused(image, says: str) -> None:
    with pytest.raises(DataError) as e:
        plain()(image)
    assert says in str(e.value)
    assert e.value.hint
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (0, 8)},
        {"size": (8,)},
        {"size": (8.0, 8)},
        {"channels": 0},
        {"mean": (1.0, 2.0)},
        {"mean": (float("nan"),)},
        {"std": (0.0,)},
        {"std": (float("nan"),)},
        {"crop_pct": 1.5},
        {"crop_pct": 0.0},
        {"crop_pct": 1e-9},
        {"interpolation": "lanczos"},
        {"layout": "CHWN"},
        {"dtype": "float16"},
        {"dtype": "int8"},
        {"dtype": "int8", "scale": 0.0, "zero_point": 0},
        {"unknown": 1},
        {"crop_pct": "0.9"},
        {"mean": 3},
    ],
)
def test_wrong_parameters_are_refused(changes: dict) -> None:
    good = {"size": (8, 8), "channels": 3, "mean": (0.0,), "std": (1.0,)}
    with pytest.raises(DataError) as e:
        Preprocess.from_json({**good, **changes})
    assert e.value.where.startswith("preprocess")


def test_pixels_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        plain(8).normalise(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        plain(8).normalise(np.zeros((8, 8, 3), np.float32))


def test_a_large_photo_is_not_copied_as_floats() -> None:
    """What a photograph of 36 MB costs is the memory that is touched (0.05 s on one idle core)."""
    image = np.random.default_rng(7).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    pre = plain(224)
    pre.geometry(image)
    tracemalloc.start()
    pre.geometry(image)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < image.nbytes


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("grid", [{}, {"dtype": "int8", "scale": 0.02, "zero_point": 3}])
@pytest.mark.parametrize("mean", [(10.0,), (10.0, 90.0, 200.0)])
def test_writing_into_an_earlier_array_changes_nothing_else(layout, grid, mean):
    made = Preprocess((5, 7), 3, mean, (64.0,), layout=layout, **grid)
    one, two = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    fresh = made.normalise(two)
    again = made.normalise(one)
    assert made.normalise(two, again) is again
    np.testing.assert_array_equal(again, fresh)
