"""8-bit weights that vpmaddubsw's sums of 16 bits hold, and no smaller than they must be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgecv.stages.quantize.options import Options
from edgecv.stages.quantize.pairs import MOST, fitted, neighbours, saturating, stretch
from edgecv.stages.quantize.rounding import Moments
from edgecv.stages.quantize.settling import settle_layer

SHAPES = [(4, 8, 1, 1), (3, 5, 3, 3), (2, 3, 5, 5), (6, 7), (2, 1, 1, 1)]


def madd(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Σ x q as x86 without VNNI adds it: products of two neighbours saturate at 16 bits."""
    if len(x) % 2:
        x, q = np.append(x, 0), np.append(q, 0)
    pairs = (x.astype(int) * q.astype(int)).reshape(-1, 2).sum(1)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum()


def in_engine_order(q: np.ndarray) -> np.ndarray:
    """(O, C, kh, kw) as rows in the order of NHWC."""
    return q.transpose(0, 2, 3, 1).reshape(len(q), -1) if q.ndim == 4 else q


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 10_000))
def test_fitted_weights_add_exactly_whatever_the_pixels(shape: tuple[int, ...], seed: int) -> None:
    draw = np.random.default_rng(seed)
    q = draw.integers(-127, 128, shape)
    pairs = neighbours(shape)
    assert pairs is not None
    made = fitted(q.reshape(len(q), -1), pairs)
    assert not saturating(made, pairs).any()
    for row in in_engine_order(made.reshape(shape)):
        for x in (np.full(len(row), 255), np.where(row > 0, 255, 0), np.where(row < 0, 255, 0),
                  draw.integers(0, 256, len(row))):  # fmt: skip
            assert madd(x, row) == (x * row).sum()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 10_000))
def test_only_what_saturates_is_touched_and_only_towards_zero(
    shape: tuple[int, ...], seed: int
) -> None:
    q = np.random.default_rng(seed).integers(-127, 128, shape).reshape(shape[0], -1)
    pairs = neighbours(shape)
    assert pairs is not None
    made = fitted(q, pairs)
    np.testing.assert_array_equal(made[~saturating(q, pairs)], q[~saturating(q, pairs)])
    assert (np.abs(made) <= np.abs(q)).all()
    assert (made * q >= 0).all()


def test_neighbours_are_channels_of_one_place_and_odd_channels_reach_into_the_next() -> None:
    even = neighbours((1, 4, 1, 2))
    assert even is not None
    assert sorted(map(tuple, even)) == [(0, 2), (1, 3), (4, 6), (5, 7)]
    odd = neighbours((1, 3, 1, 2))  # in memory: 0 2 4 1 3 5
    assert odd is not None
    assert {(0, 2), (4, 1), (3, 5), (1, 3)} <= set(map(tuple, odd))


def test_depthwise_has_none_and_groups_are_not_known() -> None:
    alone = neighbours((8, 1, 3, 3), groups=8)
    assert alone is not None
    assert len(alone) == 0
    assert neighbours((8, 2, 3, 3), groups=4) is None


def test_a_step_grows_only_as_far_as_its_worst_pair_asks() -> None:
    pairs = neighbours((1, 4))
    assert pairs is not None
    apart = np.array([[[120.0, 5.0, -120.0, 3.0]]])
    assert stretch(apart, pairs)[0, 0] == 1.0
    together = np.array([[[126.0, 63.0, 1.0, 1.0]]])
    assert stretch(together, pairs)[0, 0] == pytest.approx(1.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["nearest", "gptq", "descent"]))
def test_a_settled_layer_fits_and_loses_less_than_seven_bits(seed: int, rounding: str) -> None:
    draw = np.random.default_rng(seed)
    w = draw.normal(size=(8, 16, 3, 3))
    seen = Moments()
    seen.add(draw.random((1, 144, 4000)), 1)
    rows = np.abs(w).reshape(8, -1).max(1)
    pairs = neighbours(w.shape)
    assert pairs is not None
    options = Options(rounding=rounding)
    seven = settle_layer(w, np.zeros(8), seen, rows / 64, 0.02, 64, options)
    made = settle_layer(w, np.zeros(8), seen, rows / 64, 0.02, 64, options, pairs)
    assert not saturating(made.q.reshape(8, -1), pairs).any()
    assert (made.s <= seven.s * 1.02).all()
    assert made.s.mean() < 0.95 * seven.s.mean()
    assert np.abs(made.q).max() <= MOST


def test_the_engine_of_this_machine_computes_them_exactly() -> None:
    """Pixels of 255 and the largest weights that fit, in ONNX Runtime's integer convolution."""
    import onnxruntime

    draw = np.random.default_rng(0)
    for channels, kernel in ((64, 1), (16, 3), (3, 3)):
        q = draw.integers(-127, 128, (32, channels, kernel, kernel))
        pairs = neighbours(q.shape)
        assert pairs is not None
        q = fitted(q.reshape(32, -1), pairs).reshape(q.shape).astype(np.int8)
        x = np.full((1, channels, 12, 12), 255, np.uint8)
        made = onnx.helper.make_graph(
            [onnx.helper.make_node(
                "QLinearConv", ["x", "one", "zero", "w", "one", "none", "wide", "middle"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, x.shape)],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
            [
                numpy_helper.from_array(np.float32(1), "one"),
                numpy_helper.from_array(np.uint8(0), "zero"),
                numpy_helper.from_array(q, "w"),
                numpy_helper.from_array(np.int8(0), "none"),
                numpy_helper.from_array(np.float32(20_000), "wide"),
                numpy_helper.from_array(np.uint8(128), "middle"),
            ],
        )  # fmt: skip
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)])
        model.ir_version = 8
        engine = onnxruntime.InferenceSession(model.SerializeToString())
        (got,) = engine.run(None, {"x": x})
        want = np.rint(255 * q.astype(int).sum((1, 2, 3)) / 20_000) + 128
        np.testing.assert_allclose(got[0, :, 0, 0], np.clip(want, 0, 255), atol=1)
