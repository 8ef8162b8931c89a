"""8-bit weights that vpmaddubsw's sums of 16 bits hold, and no smaller than they must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgecv.methods.quantize.layer_rounding import settle_layer
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.rounding import Moments
from edgecv.methods.quantize.vnni_saturation import MOST, fitted, neighbours, saturating, stretch

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
    made = fitted(q, pairs)
    np.testing.assert_array_equal(made[~saturating(q, pairs)], q[~saturating(q, pairs)])
    assert (np.abs(made) <= np.abs(q)).all()
    assert (made * q >= 0).all()


def test_neighbours_are_channels_of_one_place_and_odd_channels_reach_into_the_next() -> None:
    even = neighbours((1, 4, 1, 2))
    assert sorted(map(tuple, even)) == [(0, 2), (1, 3), (4, 6), (5, 7)]
    odd = neighbours((1, 3, 1, 2))  # in memory: 0 2 4 1 3 5
    assert {(0, 2), (4, 1), (3, 5), (1, 3)} <= set(map(tuple, odd))


def test_depthwise_has_none_unless_a_channel_has_several_kernels() -> None:
    assert len(neighbours((8, 1, 3, 3), groups=8)) == 0
    assert len(neighbours((8, 1, 3, 3))) > 0
    np.testing.assert_array_equal(neighbours((16, 1, 1, 4), groups=8), [[0, 1], [2, 3]])
    several = neighbours((8, 3, 3, 3), groups=4)
    np.testing.assert_array_equal(several, neighbours((8, 3, 3, 3)))


def test_a_step_grows_only_as_far_as_its_worst_pair_asks() -> None:
    pairs = neighbours((1, 4))
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
    options = Options(rounding=rounding)
    seven = settle_layer(w, np.zeros(8), seen, rows / 64, 0.02, 64, options)
    made = settle_layer(w, np.zeros(8), seen, rows / 64, 0.02, 64, options, pairs)
    assert not saturating(made.q.reshape(8, -1), pairs).any()
    assert (made.s <= seven.s * 1.02).all()
    assert made.s.mean() < 0.95 * seven.s.mean()
    assert np.abs(made.q).max() <= MOST


LAID_OUT = [(64, 1, 32, 1), (16, 1, 32, 3), (3, 1, 32, 3), (6, 6, 12, 4), (8, 8, 32, 3),
            (12, 4, 8, 3), (32, 2, 16, 3), (8, 8, 8, 3)]  # fmt: skip


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_engines_of_this_machine_compute_them_exactly(engine: str, tmp_path: Path) -> None:
    """Pixels of 0 and 255, the largest weights that fit: (channels, groups, outputs, kernel)."""
    pytest.importorskip(engine)
    draw = np.random.default_rng(0)
    for channels, groups, outputs, kernel in LAID_OUT:
        q = draw.integers(-127, 128, (outputs, channels // groups, kernel, kernel))
        pairs = neighbours(q.shape, groups)
        q = fitted(q.reshape(outputs, -1), pairs).reshape(q.shape).astype(np.int8)
        x = 255.0 * draw.integers(0, 2, (1, channels, 12, 12)).astype(np.float32)
        model = convolution(q, groups, x.shape)
        got = answers(engine, model, x, tmp_path)[0, :, 0, 0]
        window = x[0, :, :kernel, :kernel].reshape(groups, 1, -1)
        want = (window * q.reshape(groups, outputs // groups, -1)).sum(-1).ravel()
        np.testing.assert_allclose(got / STEP, np.clip(np.rint(want / STEP), -128, 127), atol=1)


STEP = 2048.0  # of the answers: a sum that saturates is 30,000 and more away


def convolution(q: np.ndarray, groups: int, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Q/DQ nodes about a convolution of these integers; every step is 1 but the answers'."""
    zeros = np.zeros(len(q), np.int32)
    held = {"one": np.float32(1), "none": np.uint8(0), "step": np.float32(STEP), "q": q,
            "middle": np.uint8(128), "ones": np.ones(len(q), np.float32),
            "zeros": zeros.astype(np.int8), "b": zeros}  # fmt: skip
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "one", "none"], ["xq"]),
        node("DequantizeLinear", ["xq", "one", "none"], ["xd"]),
        node("DequantizeLinear", ["q", "ones", "zeros"], ["w"], axis=0),
        node("DequantizeLinear", ["b", "ones", "b"], ["bias"], axis=0),
        node("Conv", ["xd", "w", "bias"], ["sum"], group=groups),
        node("QuantizeLinear", ["sum", "step", "middle"], ["yq"]),
        node("DequantizeLinear", ["yq", "step", "middle"], ["y"]),
    ]
    tensor = onnx.helper.make_tensor_value_info
    ends = [tensor("x", onnx.TensorProto.FLOAT, shape)], [tensor("y", onnx.TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()]
    graph = onnx.helper.make_graph(nodes, "g", *ends, weights)
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)


def answers(engine: str, model: onnx.ModelProto, x: np.ndarray, room: Path) -> np.ndarray:
    if engine == "onnxruntime":
        import onnxruntime

        (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
        return np.asarray(found)
    import openvino

    onnx.save(model, room / "net.onnx")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(openvino.Core().compile_model(room / "net.onnx", "CPU", hints)([x])[0])
