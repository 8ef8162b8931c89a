"""What a network is fed: every form of it the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.bundling.inference import session_answers
from edgecv.errors import DataError
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, image_of
from edgecv.samples import Feeds, Samples, calibration_data

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
PRE = Preprocess((6, 7), 3, (100.0,), (50.0,))
IMAGE = TensorSpec("image", "float32", (1, 3, 6, 7), "NCHW")
MORE = TensorSpec("more", "float32", (1, 4))


def test_pixels_alone_are_the_image() -> None:
    feeds = list(Feeds(PIXELS, [IMAGE], PRE))
    assert len(feeds) == 5
    np.testing.assert_array_equal(feeds[3]["image"], PRE.normalise(PIXELS[3:4]))


def test_an_input_without_values_is_an_error() -> None:
    with pytest.raises(DataError, match=r"input 'more': \(1, 4\) has no values"):
        next(iter(Feeds(PIXELS, [IMAGE, MORE], PRE)))


BLANK = np.zeros((5, 6, 7, 3), np.uint8)  # what stands for an image where a file has none


@pytest.mark.parametrize("name", ["imgae", "more"])
def test_a_file_without_the_image_is_an_error_and_no_black_picture(name: str) -> None:
    arrays = {name: RNG.normal(size=(5, 4))}
    with pytest.raises(DataError, match=rf"input 'image': has no values .*{name}"):
        Feeds(Samples(BLANK, arrays, blank=True), [IMAGE, MORE], PRE)


def test_a_black_picture_is_a_picture() -> None:
    found = Feeds(Samples(BLANK, {"more": np.ones((5, 4))}), [IMAGE, MORE], PRE)[0]["image"]
    np.testing.assert_array_equal(found, PRE.normalise(BLANK[:1]))


@pytest.mark.parametrize("shape", [(6, 7, 3), (126,), (3, 7, 6), (2, 3, 6, 7)])
def test_an_array_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    arrays = {"image": np.ones((5, *shape), np.float32)}
    with pytest.raises(DataError, match=r"array 'image': .* the network's input is 3x6x7"):
        Feeds(Samples(BLANK, arrays, blank=True), [IMAGE], PRE)


@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 3, 6, 7)])
def test_an_array_may_keep_the_axis_of_its_batch(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=(5, *shape)).astype(np.float32)
    found = Feeds(Samples(BLANK, {"image": values}, blank=True), [IMAGE], PRE)[4]["image"]
    np.testing.assert_array_equal(found[0], values[4].reshape(3, 6, 7))


def test_what_is_made_up_is_the_same_in_every_form() -> None:
    samples = Samples(PIXELS, made_up=True)
    first = [f["more"] for f in Feeds(samples, [IMAGE, MORE], PRE)]
    assert not np.array_equal(first[0], first[1])
    part = [f["more"] for f in Feeds(samples[np.array([1, 4])], [MORE, IMAGE], PRE)]
    np.testing.assert_array_equal(part, [first[1], first[4]])


def test_an_engine_may_hold_channels_last_and_integers() -> None:
    maps = RNG.normal(size=(5, 9, 2, 3))
    held = TensorSpec("map", "int8", (1, 2, 3, 9), "NHWC", 0.1, 3)
    samples = Samples(PIXELS, {"map": maps})
    specs = [IMAGE, held]
    found = Feeds(samples, specs, PRE)[2]["map"]
    wanted = np.clip(np.rint(maps[2].transpose(1, 2, 0) / np.float32(0.1)) + 3, -128, 127)
    np.testing.assert_array_equal(found, wanted[None].astype(np.int8))
    np.testing.assert_allclose(Feeds(samples, specs, PRE).first()[2]["map"], maps[2:3], rtol=1e-6)


def test_a_batch_takes_samples_in_order_and_begins_again() -> None:
    image = TensorSpec("image", "float32", (2, 3, 6, 7), "NCHW")
    more = TensorSpec("more", "float32", (2, 4))
    rows = RNG.normal(size=(5, 4)).astype(np.float32)
    feeds = Feeds(Samples(PIXELS, {"more": rows}), [image, more], PRE)
    assert len(feeds) == 3
    np.testing.assert_array_equal(feeds[2]["more"], rows[[4, 0]])
    np.testing.assert_array_equal(feeds[1]["image"], PRE.normalise(PIXELS[2:4]))


class Engine:
    """Answers its input's sums: by sample, and of the whole call."""

    def __init__(self, batch: int) -> None:
        self.inputs = (TensorSpec("image", "float32", (batch, 3, 6, 7), "NCHW"),)
        self.outputs = (
            TensorSpec("each", "float32", (batch, 1)),
            TensorSpec("all", "float32", (7, 2)),
            TensorSpec("one", "float32", ()),
        )

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = feed["image"]
        return {"each": x.sum((1, 2, 3))[:, None], "all": np.full((7, 2), x.sum()), "one": x.sum()}


@pytest.mark.parametrize("batch", [1, 2])
def test_answers_have_a_row_for_each_sample_or_for_each_call(batch: int) -> None:
    each, every, one = session_answers(Engine(batch), PIXELS, PRE)
    sums = PRE.normalise(PIXELS).sum((1, 2, 3))
    np.testing.assert_allclose(each[:, 0], sums, rtol=1e-5)
    calls = -(-5 // batch)
    assert every.shape == (calls, 7, 2)
    assert one.shape == (calls,)
    np.testing.assert_allclose(one[0], sums[:batch].sum(), rtol=1e-5)


def test_the_image_among_several_inputs() -> None:
    features = TensorSpec("features", "float32", (1, 64, 6, 7), "NCHW")
    assert image_of([features, IMAGE, MORE]) is IMAGE
    assert image_of([features]) is features
    assert image_of([MORE]) is None


def test_one_image_is_calibrated_as_an_array() -> None:
    found = calibration_data(PIXELS, [IMAGE], PRE)
    np.testing.assert_array_equal(found, PRE.normalise(PIXELS))
    assert isinstance(calibration_data(Samples(PIXELS, made_up=True), [IMAGE, MORE], PRE), Feeds)
