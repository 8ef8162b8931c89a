"""Maps move with their pictures: a picture drawn of its map is that of the map that moved."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.data.annotations import IGNORED
from edgecv.data.augment import PAD
from edgecv.methods.training.plan import Plan
from edgecv.tasks.segmentation.augment import augmented

H, W = 40, 56
LEVELS = np.full(256, PAD, np.uint8)  # of each class its grey, and of IGNORED the padding
LEVELS[:3] = 0, 60, 220


def maps(seed, images):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (images, H // 8, W // 8), np.uint8)
    return list(coarse.repeat(8, 1).repeat(8, 2))


def drawn(truths):
    return np.stack([LEVELS[m] for m in truths])[..., None].repeat(3, 3)


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0, 0.8), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_pixels_away_from_borders_are_of_their_class(seed, images, scale, shift):
    truths = maps(seed, images)
    plan, rng = Plan(1, scale=scale, shift=shift), np.random.default_rng(seed)
    pixels, found = augmented(drawn(truths), truths, plan, rng)
    assert pixels.shape == (images, H, W, 3)
    for picture, index in zip(pixels, found, strict=True):
        assert (index.dtype, index.shape) == (np.uint8, (H, W))
        assert set(np.unique(index)) <= {0, 1, 2, IGNORED}
        inner = np.ones((H, W), bool)
        for by in np.ndindex(7, 7):  # corners too: resizing reads a square
            inner &= np.roll(index, (by[0] - 3, by[1] - 3), (0, 1)) == index
        inner[:3] = inner[-3:] = False
        inner[:, :3] = inner[:, -3:] = False
        inner &= np.abs(picture[..., 0].astype(int) - LEVELS[index]) > 40
        assert not inner.any()


def test_a_plan_that_asks_for_nothing_changes_nothing():
    truths = maps(0, 2)
    still = Plan(1, flip=False, shift=0)
    pixels, found = augmented(drawn(truths), truths, still, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, drawn(truths))
    np.testing.assert_array_equal(found, truths)


def test_colour_leaves_maps_as_they_are():
    truths = maps(1, 2)
    plan = Plan(1, flip=False, shift=0, colour=0.5)
    pixels, found = augmented(drawn(truths), truths, plan, np.random.default_rng(0))
    assert (pixels != drawn(truths)).any()
    np.testing.assert_array_equal(found, truths)
