"""Stretching and letterboxing equal Pillow's, pixel for pixel; what is placed maps back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import DataError
from edgecv.runtime.preprocess import Preprocess

pytest.importorskip("PIL", minversion="13")  # which of its passes comes first
from PIL import Image

FILTERS = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "nearest": Image.NEAREST}


def made(size: tuple[int, int], channels: int = 3, **changes) -> Preprocess:
    return Preprocess(size, channels, (0.0,), (1.0,), **changes)


def letterboxed(pixels: np.ndarray, size, pad: int, where: str, how: str) -> np.ndarray:
    """YOLOX's preproc (corner) and ultralytics' LetterBox (centre), written with Pillow."""
    h, w = pixels.shape[:2]
    image = Image.fromarray(pixels)
    r = min(size[0] / h, size[1] / w)
    if where == "corner":
        new, at = (int(w * r), int(h * r)), (0, 0)
    else:
        new = round(w * r), round(h * r)
        dw, dh = (size[1] - new[0]) / 2, (size[0] - new[1]) / 2
        at = round(dw - 0.1), round(dh - 0.1)
    if new != (w, h):
        image = image.resize(new, FILTERS[how])
    whole = Image.new("RGB", (size[1], size[0]), (pad,) * 3)
    whole.paste(image, at)
    return np.asarray(whole)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 90), st.integers(2, 90), st.tuples(st.integers(16, 64), st.integers(16, 64)),
    st.sampled_from(["corner", "centre"]), st.sampled_from(list(FILTERS)), st.integers(0, 255),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_letterbox_is_pillows_by_the_rounding_of_its_origin(h, w, size, where, how, pad, seed):
    h, w = min(h, 8 * w), min(w, 8 * h)  # a side stays at least a pixel
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    pre = made(size, resize="letterbox", pad_value=pad, pad_at=where, interpolation=how)
    np.testing.assert_array_equal(pre.geometry(image), letterboxed(image, size, pad, where, how))


@pytest.mark.parametrize("how", list(FILTERS))
@pytest.mark.parametrize("shape", [(7, 90), (90, 60), (640, 427), (40, 40), (33, 24), (53, 34),
                                   (54, 34), (20, 20), (300, 9), (34, 12)])  # fmt: skip
def test_a_stretch_is_pillows(how: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    got = made((33, 24), resize="stretch", interpolation=how).geometry(image)
    want = Image.fromarray(image)
    want = np.asarray(want if shape == (33, 24) else want.resize((24, 33), FILTERS[how]))
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)


def test_grey_is_padded_as_colour_is() -> None:
    image = np.full((10, 20, 3), (200, 100, 50), np.uint8)
    got = made((20, 20), 1, resize="letterbox", pad_value=7, pad_at="centre").geometry(image)
    assert got.shape == (20, 20, 1)
    assert (got[:5] == 7).all()
    assert (got[15:] == 7).all()
    assert len(np.unique(got[5:15])) == 1
    grey = made((20, 20), 3, resize="letterbox", pad_value=7).geometry(image[..., 0])
    assert (grey[0] == 7).all()
    assert (grey[10] == 200).all()


def test_an_image_is_never_thinner_than_a_pixel() -> None:
    line = np.full((1, 300, 3), 9, np.uint8)
    for where in ("corner", "centre"):
        got = made((16, 16), resize="letterbox", pad_at=where).geometry(line)
        assert (got == 9).any()


def test_none_takes_its_size_alone_and_says_both() -> None:
    pre = made((8, 6), resize="none")
    image = np.random.default_rng(2).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    assert pre.geometry(image) is image
    with pytest.raises(DataError, match="is 6x8, and this network takes 8x6 unresized"):
        pre.geometry(image.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("way", "image", "resized", "offset"),
    [
        ({"resize": "crop", "crop_pct": 0.5}, (100, 200), (40, 80), (-10, -30)),
        ({"resize": "stretch"}, (100, 200), (20, 20), (0, 0)),
        ({"resize": "letterbox", "pad_at": "corner"}, (100, 200), (10, 20), (0, 0)),
        ({"resize": "letterbox"}, (100, 200), (10, 20), (5, 0)),
        ({"resize": "letterbox"}, (200, 99), (20, 10), (0, 5)),
        ({"resize": "none"}, (20, 20), (20, 20), (0, 0)),
    ],
)
def test_where_an_image_lies(way, image, resized, offset) -> None:
    found = made((20, 20), **way).placement(*image)
    assert (found.resized, found.offset) == (resized, offset)
    assert found.scale == (resized[0] / image[0], resized[1] / image[1])


@pytest.mark.parametrize("way", [{"crop_pct": 0.8}, {"resize": "stretch"}, {"resize": "letterbox"},
                                 {"resize": "letterbox", "pad_at": "corner"}])  # fmt: skip
def test_a_spot_is_found_where_the_placement_says(way) -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    image[36:48, 60:72] = 255  # its middle is at (42, 66)
    pre = made((48, 48), interpolation="bilinear", **way)
    found = pre.placement(90, 120)
    y, x = np.argwhere(pre.geometry(image)[..., 0] == 255).mean(0) + 0.5
    back = [(v - o) / s for v, o, s in zip((y, x), found.offset, found.scale, strict=True)]
    np.testing.assert_allclose(back, (42, 66), atol=1.5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "grid", [{}, {"dtype": "int8", "scale": 0.02, "zero_point": 3},
             {"dtype": "uint8", "scale": 1.0, "zero_point": 0}],
)  # fmt: skip
@pytest.mark.parametrize("mean", [(0.0,), (103.5, 116.3, 123.7)])
def test_bgr_is_the_channels_turned_about_before_mean_and_std(layout, grid, mean) -> None:
    image = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    rgb, bgr = (Preprocess((5, 7), 3, mean, (1.0,), 1.0, layout=layout, color=c, **grid)
                for c in ("rgb", "bgr"))  # fmt: skip
    np.testing.assert_array_equal(bgr(image), rgb(np.ascontiguousarray(image[..., ::-1])))
    np.testing.assert_array_equal(bgr.geometry(image), image)  # pictures stay RGB
    np.testing.assert_array_equal(bgr(image, bgr(255 - image)), bgr(image))


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_channels_are_taken_as_they_are(channels: int) -> None:
    image = np.random.default_rng(4).integers(0, 256, (30, 40, channels), dtype=np.uint8)
    mean = tuple(float(c) for c in range(channels))
    pre = Preprocess((16, 16), channels, mean, (2.0,), resize="letterbox", pad_value=0)
    each = [np.asarray(Image.fromarray(image[..., c]).resize((16, 12), Image.BICUBIC))
            for c in range(channels)]  # fmt: skip
    want = np.zeros((channels, 16, 16), np.float32)
    want[:, 2:14] = each
    want = (want - np.array(mean, np.float32)[:, None, None]) / 2
    np.testing.assert_allclose(pre(image)[0], want, rtol=1e-6)
    for other in (image[..., :1], image[..., 0], np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(DataError, match=f"of the network's {channels} channels"):
            pre(other)


def test_what_goes_without_saying_is_not_said() -> None:
    old = {"size": [8, 8], "channels": 3, "mean": [0.0], "std": [1.0], "crop_pct": 0.875,
           "interpolation": "bicubic", "layout": "NCHW", "dtype": "float32"}  # fmt: skip
    assert json.dumps(made((8, 8)).to_json()) == json.dumps(old)
    assert json.dumps(made((8, 8), 1).to_json()) == json.dumps({**old, "channels": 1})
    assert Preprocess.from_json({**old, "channels": 1}).color == "grey"


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "stretch", "color": "bgr"},
        {"resize": "letterbox"},
        {"resize": "letterbox", "pad_at": "corner", "pad_value": 0},
        {"resize": "none", "channels": 1},
        {"channels": 5},
    ],
)
def test_json_round_trip(changes: dict) -> None:
    pre = Preprocess(**{"size": (8, 9), "channels": 3, "mean": (0.0,), "std": (1.0,), **changes})
    data = json.loads(json.dumps(pre.to_json()))
    assert Preprocess.from_json(data) == pre
    assert ("crop_pct" in data) == (pre.resize == "crop")
    assert ("pad_at" in data) == ("pad_value" in data) == (pre.resize == "letterbox")


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "fit"},
        {"resize": "letterbox", "pad_value": 256},
        {"resize": "letterbox", "pad_value": 0.5},
        {"resize": "letterbox", "pad_at": "left"},
        {"pad_value": 114},
        {"pad_at": "centre"},
        {"resize": "stretch", "crop_pct": 0.875},
        {"color": "yuv"},
        {"color": "bgr", "channels": 1},
        {"color": "bgr", "channels": 4},
        {"color": "grey"},
        {"channels": 0},
        {"channels": 1 << 20},
        {"channels": 2, "mean": (1.0, 2.0, 3.0)},
    ],
)
def test_wrong_parameters_are_refused(changes: dict) -> None:
    good = {"size": (8, 8), "channels": 3, "mean": (0.0,), "std": (1.0,)}
    with pytest.raises(DataError) as e:
        Preprocess.from_json({**good, **changes})
    assert e.value.where.startswith("preprocess")
