"""Arrays by the graph's own names and layout, on engines that hold them otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.errors import DataError
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.spec import TensorSpec

RNG = np.random.default_rng(0)
OWN = TensorSpec("image", "float32", (1, 3, 4, 5), "NCHW")
LAST = TensorSpec("serving_default_x:0", "float32", (1, 4, 5, 3), "NHWC")
GRID = TensorSpec("image", "int8", (1, 4, 5, 3), "NHWC", 0.5, -3)


def between(graph: TensorSpec, engine: TensorSpec) -> Interface:
    pairs = own([engine], [graph])
    return Interface(pairs, pairs, "net")


def test_channels_go_where_the_engine_has_them_and_back() -> None:
    both, x = between(OWN, LAST), RNG.normal(size=OWN.shape).astype(np.float32)
    fed = both.feed({"image": x})
    np.testing.assert_array_equal(fed[LAST.name], x.transpose(0, 2, 3, 1))
    assert fed[LAST.name].flags.c_contiguous
    np.testing.assert_array_equal(both.answer(dict(fed))["image"], x)
    assert both.inputs == (OWN,)


def test_a_map_as_high_as_it_has_channels_is_not_mistaken() -> None:
    graph = TensorSpec("image", "float32", (1, 3, 3, 3), "NCHW")
    engine = TensorSpec("image", "float32", (1, 3, 3, 3), "NHWC")
    x = RNG.normal(size=(1, 3, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        between(graph, engine).feed({"image": x})["image"], x.transpose(0, 2, 3, 1)
    )


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 3, 3)])
def test_a_second_picture_goes_where_the_engine_has_it(shape: tuple[int, ...]) -> None:
    _, *row = shape
    graph = TensorSpec("other", "float32", shape)  # only the first picture is told as one
    engine = TensorSpec("other", "float32", (1, *row[1:], row[0]), "NHWC")
    x = RNG.normal(size=shape).astype(np.float32)
    fed = between(graph, engine).feed({"other": x})
    np.testing.assert_array_equal(fed["other"], x.transpose(0, 2, 3, 1))


def test_integers_are_real_numbers_outside() -> None:
    both, x = between(OWN, GRID), RNG.normal(size=OWN.shape).astype(np.float32)
    fed = both.feed({"image": x})["image"]
    assert fed.dtype == np.int8
    back = both.answer({"image": fed})["image"]
    assert back.dtype == np.float32
    assert np.abs(back - x).max() <= 0.25 + 1e-6


def test_arrays_of_the_engines_own_are_taken_as_they_are() -> None:
    q = RNG.integers(-128, 128, GRID.shape).astype(np.int8)
    assert between(OWN, GRID).feed({"image": q})["image"] is q


def test_a_file_of_bytes_takes_bytes() -> None:
    graph = TensorSpec("pixels", "uint8", (1, 4, 5, 3), "NHWC")
    engine = TensorSpec("pixels", "float32", (1, 3, 4, 5), "NCHW")
    x = RNG.integers(0, 256, graph.shape, dtype=np.uint8)
    fed = between(graph, engine).feed({"pixels": x})["pixels"]
    np.testing.assert_array_equal(fed, x.transpose(0, 3, 1, 2).astype(np.float32))


def test_a_row_and_a_map_of_one_place_are_the_same_numbers() -> None:
    graph, engine = (
        TensorSpec("y", "float32", (1, 6, 1, 1), "NCHW"),
        TensorSpec("y", "float32", (1, 6)),
    )
    found = between(graph, engine).answer({"y": np.ones((1, 6), np.float32)})
    assert found["y"].shape == (1, 6, 1, 1)


def test_without_a_graph_the_engines_own_stand() -> None:
    ((graph, engine),) = own([GRID], [])
    assert (graph.dtype, graph.shape, engine) == ("float32", GRID.shape, GRID)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((3, 4, 5), np.float32), "shape"),
        (np.zeros((1, 3, 4, 5)), "float64"),
        ([1], "list"),
        (np.full((1, 3, 4, 5), np.nan, np.float32), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(given: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        between(OWN, GRID).feed({"image": given})
