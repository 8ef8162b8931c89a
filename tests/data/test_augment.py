"""Pictures laid elsewhere: as the whole that is resized and cut would be, and padding around it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecv.data import augment

SIZE = (20, 28)


def noise(seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, channels), np.uint8)


@given(st.integers(0, 10_000), st.floats(0, 1.0), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_picture_covers_the_canvas_or_lies_in_it(seed, reach, shift):
    lies = augment.drawn(SIZE, reach, shift, np.random.default_rng(seed))
    for side, new, at, scale in zip(SIZE, lies.resized, lies.offset, lies.scale, strict=True):
        assert round(side / (1 + reach)) - 1 <= new <= round(side * (1 + reach)) + 1
        assert min(0, side - new) - shift <= at <= max(0, side - new) + shift
        assert scale == new / side
    if not reach and not shift:
        assert lies == ((20, 28), (0, 0), (1.0, 1.0))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_laid_is_what_pillow_resizes_and_cuts(seed):
    picture, rng = noise(seed), np.random.default_rng(seed)
    lies = augment.drawn(SIZE, 0.6, 3, rng)
    canvas = np.full_like(picture, augment.PAD)
    augment.lay(canvas, picture, lies, (0, 0, *SIZE))
    whole = Image.fromarray(picture).resize(lies.resized[::-1], Image.Resampling.BILINEAR)
    expected = Image.new("RGB", SIZE[::-1], (augment.PAD,) * 3)
    expected.paste(whole, (lies.offset[1], lies.offset[0]))
    np.testing.assert_array_equal(canvas, np.asarray(expected))


def test_nothing_is_written_out_of_the_region_or_where_the_picture_is_not():
    picture, canvas = noise(), np.zeros((*SIZE, 3), np.uint8)
    augment.lay(canvas, picture, augment.placed(SIZE, SIZE, (0, 0)), (4, 6, 10, 12))
    assert not canvas[:4].any()
    assert not canvas[10:].any()
    np.testing.assert_array_equal(canvas[4:10, 6:12], picture[4:10, 6:12])
    for offset in ((30, 0), (-25, 0), (0, 40), (0, -40)):
        blank = np.zeros_like(canvas)
        augment.lay(blank, picture, augment.placed(SIZE, SIZE, offset), (0, 0, *SIZE))
        assert not blank.any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_changes_levels_and_nothing_else(channels):
    picture = noise(channels=channels)
    picture[:4] = 128
    made = augment.recoloured(picture, 0.5, np.random.default_rng(0))
    assert (made.shape, made.dtype) == (picture.shape, np.uint8)
    assert (made[:4] == made[0, 0]).all()
    assert (made != picture).mean() > 0.5
    np.testing.assert_array_equal(
        augment.recoloured(picture, 0.0, np.random.default_rng(0)), picture
    )


def test_saturation_leaves_grey_grey():
    grey = np.repeat(noise(channels=1), 3, axis=2)
    made = augment.recoloured(grey, 0.9, np.random.default_rng(1)).astype(int)
    assert np.ptp(made, axis=2).max() <= 1
