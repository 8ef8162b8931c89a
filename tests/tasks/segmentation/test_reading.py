"""From an output's cells to the image's pixels: torch's interpolation, padding undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import tasks
from edgecv.errors import UnsupportedError
from edgecv.runtime.placement import Placement, place
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.segmentation import SegmentationTask
from edgecv.tasks.segmentation.resolution import IGNORED

RNG = np.random.default_rng(0)
SIDES = st.integers(2, 90)


def spread(size: tuple[int, int], image: tuple[int, int]) -> Placement:
    return place("stretch", image, size, 1.0, "centre")


@settings(deadline=None, max_examples=30)
@given(cells=st.tuples(SIDES, SIDES), times=st.integers(1, 4), image=st.tuples(SIDES, SIDES))
def test_scores_are_torchs_interpolation(
    cells: tuple[int, int], times: int, image: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    z = np.random.default_rng(1).normal(0, 1, (1, 4, *cells)).astype(np.float32)
    size = cells[0] * times, cells[1] * times
    read = SegmentationTask(size).read({"z": z}, spread(size, image), image, scores=True)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(z), image, mode="bilinear", align_corners=False
    )
    probable = theirs.softmax(1)[0].numpy()
    assert read.scores is not None
    np.testing.assert_allclose(read.scores, probable, atol=2e-5)
    gap = np.sort(probable, 0)
    clear = gap[-1] - gap[-2] > 1e-4
    assert (read.map == theirs.argmax(1)[0].numpy())[clear].all()
    assert (read.map.dtype, read.map.shape, read.nan) == (np.uint8, image, 0)


@given(
    image=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    at=st.sampled_from(["centre", "corner"]),
    stride=st.sampled_from([1, 2, 4]),
)
def test_a_letterbox_is_undone(image: tuple[int, int], at: str, stride: int) -> None:
    """Stripes as wide as some cells come back where they were; padding says class 3 loudly."""
    size = 32, 48
    lies = place("letterbox", image, size, 1.0, at)
    (top, left), (high, wide) = lies.offset, lies.resized
    cells = np.full((size[0] // stride, size[1] // stride), 3)
    y, x = ((np.arange(n) + 0.5) * stride for n in cells.shape)
    of_y = (y > top + high / 2).astype(int)  # two stripes over the image's height
    inside = ((y >= top) & (y <= top + high))[:, None] & ((x >= left) & (x <= left + wide))
    cells[inside] = np.broadcast_to(of_y[:, None], cells.shape)[inside]
    z = 9.0 * np.eye(4, dtype=np.float32)[cells].transpose(2, 0, 1)[None]
    z[:, 3] *= 100
    read = SegmentationTask(size).read({"z": z}, lies, image)
    if inside.any(1).sum() < 2 or not inside.any():
        return
    assert (read.map < 2).all()
    middle = image[0] / 2
    clear = np.abs(np.arange(image[0]) + 0.5 - middle) > stride / lies.scale[0] + 1
    expected = (np.arange(image[0]) + 0.5 > middle).astype(int)
    assert (read.map[clear] == expected[clear, None]).all()


def test_at_the_outputs_own_resolution_it_is_argmax() -> None:
    z = RNG.normal(0, 1, (1, 12, 90, 120)).astype(np.float32)
    read = SegmentationTask((90, 120)).read({"z": z}, spread((90, 120), (90, 120)), (90, 120))
    assert (read.map == z[0].argmax(0)).all()
    equal = np.zeros((1, 3, 4, 4), np.float32)
    read = SegmentationTask((4, 4)).read({"z": equal}, spread((4, 4), (9, 9)), (9, 9))
    assert (read.map == 0).all()


def test_what_a_crop_cuts_off_is_not_known() -> None:
    lies = place("crop", (10, 30), (10, 10), 1.0, "centre")
    z = RNG.normal(0, 1, (1, 3, 10, 10)).astype(np.float32)
    read = SegmentationTask((10, 10)).read({"z": z}, lies, (10, 30))
    assert (read.map[:, 10:20] == z[0].argmax(0)).all()
    assert (read.map[:, :10] == IGNORED).all()
    assert (read.map[:, 20:] == IGNORED).all()
    assert read.nan == 0


def test_nan_is_no_class_and_counted() -> None:
    z = np.zeros((1, 3, 4, 4), np.float32)
    z[0, :, 1, 2] = np.nan
    z[0, 1, 0, 0] = np.nan
    z[0, 2, 0, 0] = 1
    read = SegmentationTask((4, 4)).read({"z": z}, spread((4, 4), (4, 4)), (4, 4))
    assert (read.map[1, 2], read.map[0, 0], read.nan) == (IGNORED, 2, 1)


@pytest.mark.parametrize("holds", ["logit", "probability"])
def test_one_value_a_pixel(holds: str) -> None:
    p = np.array([[[[0.2, 0.8], [0.6, 0.4]]]], np.float32)
    z = p if holds == "probability" else np.log(p / (1 - p))
    task = SegmentationTask((2, 2), holds=holds)
    read = task.read({"z": z}, spread((2, 2), (2, 2)), (2, 2), scores=True)
    assert read.map.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(read.scores, np.stack([1 - p[0, 0], p[0, 0]]), atol=1e-6)


def test_a_network_that_gives_classes() -> None:
    z = np.array([[[0, 1], [2, 300]]], np.float32)
    task = SegmentationTask((4, 4), holds="indices")
    read = task.read({"z": z}, spread((4, 4), (4, 4)), (4, 4))
    assert read.map.tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, IGNORED, IGNORED]] * 2
    with pytest.raises(UnsupportedError, match="classes and no scores"):
        task.read({"z": z}, spread((4, 4), (4, 4)), (4, 4), scores=True)
    with pytest.raises(UnsupportedError, match="1x3x4x4, no indices"):
        task.read({"z": np.zeros((1, 3, 4, 4))}, spread((4, 4), (4, 4)), (4, 4))


def test_probabilities_stay_what_they_are() -> None:
    p = RNG.dirichlet([1, 1, 1], (6, 6)).transpose(2, 0, 1)[None].astype(np.float32)
    read = SegmentationTask((6, 6)).read({"z": p}, spread((6, 6), (6, 6)), (6, 6), scores=True)
    np.testing.assert_array_equal(read.scores, p[0])


def test_answers() -> None:
    task = SegmentationTask((2, 2))
    z = np.eye(3, dtype=np.float32)[[[0, 2], [2, 2]]].transpose(2, 0, 1)[None]
    read = task.read({"z": z}, spread((2, 2), (2, 2)), (2, 2))
    assert task.answer(read, ("a", "b", "c")) is read.map
    assert task.to_json(read, ("a", "b", "c")) == {
        "size": [2, 2], "share": {"c": 0.75, "a": 0.25}}  # fmt: skip
    assert list(task.to_json(read, ())["share"]) == ["2", "0"]
    read = task.read({"z": z}, spread((2, 2), (2, 2)), (2, 2), scores=True)
    assert task.answer(read, ())[1].shape == (3, 2, 2)


def test_a_manifest_holds_it() -> None:
    task = SegmentationTask((64, 32), "map", "indices")
    said = task.described()
    assert said == {"input": (64, 32), "output": "map", "holds": "indices"}
    assert (
        tasks.of_manifest({"task": "segmentation", "decode": {**said, "input": [64, 32]}}) == task
    )
    for wrong in ({"input": [0, 2]}, {"input": [4, 4], "holds": "x"}, {"inputs": [4, 4]},
                  {"input": [4, 4], "output": ["map"]}):  # fmt: skip
        with pytest.raises(ValueError, match=r"decode\."):
            SegmentationTask.of(wrong)


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


@pytest.mark.parametrize(
    ("outputs", "classes", "said", "expected"),
    [
        ([spec("z", 1, 12, 45, 60)], None, {}, ("z", "scores")),
        ([spec("z", 1, 12, 360, 480), spec("aux", 1, 64, 45, 60)], 12, {}, ("z", "scores")),
        ([spec("z", 1, 12, 12, 15)], None, {}, ("z", "scores")),  # 32 pixels a cell, rounded up
        ([spec("z", 1, 360, 480, dtype="int64")], 12, {}, ("z", "indices")),
        ([spec("z", 1, 1, 360, 480)], None, {"holds": "logit"}, ("z", "logit")),
        ([spec("z", 1, 12, 45, 60), spec("aux", 1, 12, 45, 60)], None, {"output": "aux"},
         ("aux", "scores")),
    ],
)  # fmt: skip
def test_graphs_are_recognised(outputs: Any, classes: Any, said: Any, expected: Any) -> None:
    found = SegmentationTask.of_graph(outputs, (360, 480), classes, said)
    assert (found.output, found.holds, found.input) == (*expected, (360, 480))


def test_a_sigmoid_makes_a_probability() -> None:
    one, two = [spec("z", 1, 1, 45, 60)], [spec("z", 1, 2, 45, 60)]
    assert SegmentationTask.of_ends(one, ["z"]) == {"holds": "probability"}
    for outputs, sigmoid in ((one, []), (two, ["z"]), ([*one, spec("y", 1, 1, 9, 9)], ["z"])):
        assert SegmentationTask.of_ends(outputs, sigmoid) == {}


@pytest.mark.parametrize(
    ("outputs", "classes", "said", "line"),
    [
        ([spec("z", 1, 1000)], None, {}, "outputs z 1x1000, expected 1xCxhxw"),
        ([spec("z", 1, 12, 45, 60)], 21, {}, "z has 12 channels, and there are 21 classes"),
        ([spec("z", 1, 12, 45, 60)], 11, {}, "and there are 11 classes .*is the one more the back"),
        ([spec("z", 1, 12, 45, 60), spec("y", 1, 12, 9, 12)], None, {}, "--decode output=z"),
        ([spec("z", 1, 1, 45, 60)], None, {}, "holds=logit, holds=probability, holds=indices"),
        ([spec("z", 1, 1, 45, 60)], 3, {"holds": "logit"}, "2 classes apart, and there are 3"),
        ([spec("z", 1, 1, 45, 60)], 1, {"holds": "logit"}, "name both, what is none of it first"),
        ([spec("z", 1, 2, 45, 60)], 2, {"holds": "logit"}, "z is scores .*, and holds says logit"),
        ([spec("z", 1, 1, 45, 60)], 2, {"holds": "x"}, "holds=logit"),
        ([spec("z", 1, 12, 60, 45)], None, {}, "outputs z 1x12x60x45"),
        ([spec("z", 1, 12, 45, 60)], None, {"output": "y"}, "no output 'y'"),
    ],
)
def test_what_is_not_certain_is_refused(outputs: Any, classes: Any, said: Any, line: str) -> None:
    with pytest.raises(UnsupportedError, match=line):
        SegmentationTask.of_graph(outputs, (360, 480), classes, said)


def test_an_output_that_is_not_there_is_told() -> None:
    task = SegmentationTask((8, 8), "map")
    with pytest.raises(UnsupportedError, match="there is no output 'map', but other"):
        task.read({"other": np.zeros((1, 3, 4, 4))}, Placement((8, 8), (0, 0), (1, 1)), (8, 8))
