"""C: transposed convolutions and tokens, against ONNX Runtime with its optimisations off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv import source_trust
from edgecv.backends.c import reference
from edgecv.backends.c.compile import compile as to_c
from edgecv.backends.c.read import read
from edgecv.backends.c.run import Session, probe
from edgecv.methods.export.onnx import load_onnx
from edgecv.target import load

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def network(nodes: list[Any], shape: tuple[int, ...], **held: np.ndarray) -> Any:
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def answer(model: Any, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 3], "pads": [0, 1, 1, 0]},
        {"dilations": [2, 1], "pads": [1, 0, 2, 1]},
        {"strides": [3, 2], "dilations": [1, 2], "output_padding": [2, 0]},
    ],
)
def test_a_transposed_convolution_of_any_geometry(group: int, more: dict[str, Any]) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=group, **more)
    model = network([node], (1, 4, 4, 5), w=normal(4, 3, 3, 3), b=normal(3 * group))
    x = normal(1, 4, 4, 5)
    steps = read(model, "c")
    got = reference.run(steps, x[0].transpose(1, 2, 0))[steps.result]
    np.testing.assert_allclose(got.transpose(2, 0, 1), answer(model, x)[0], rtol=1e-4, atol=1e-5)


def tokens() -> Any:
    """Patches → tokens (1, T, C) → norm, two dense layers, a sum → mean → classes."""
    nodes = [
        helper.make_node("Conv", ["x", "p"], ["c"], strides=[4, 4]),
        helper.make_node("Reshape", ["c", "s"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("LayerNormalization", ["t", "g", "h"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "u"], ["m"]),
        helper.make_node("Add", ["m", "a"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["k"]),
        helper.make_node("Add", ["t", "k"], ["o"]),
        helper.make_node("ReduceMean", ["o", "axes"], ["q"], keepdims=0),
        helper.make_node("Gemm", ["q", "d"], ["y"]),
    ]
    held = {
        "p": normal(6, 3, 4, 4), "s": np.array([1, 6, 6], np.int64), "g": normal(6),
        "h": normal(6), "u": normal(6, 9), "a": normal(9), "v": normal(9, 6),
        "axes": np.array([1], np.int64), "d": normal(6, 4),
    }  # fmt: skip
    return network(nodes, (1, 3, 8, 12), **held)


@pytest.mark.skipif(not probe().available, reason="no C compiler")
def test_tokens_and_a_transposed_convolution_run_as_compiled(tmp_path: Path) -> None:
    up = helper.make_node(
        "ConvTranspose", ["x", "w"], ["z"], strides=[2, 2], group=2, output_padding=[1, 1]
    )
    ends = [helper.make_node("GlobalAveragePool", ["z"], ["q"]),
            helper.make_node("Flatten", ["q"], ["y"])]  # fmt: skip
    for name, model in (
        ("tokens", tokens()),
        ("up", network([up, *ends], (1, 4, 5, 5), w=normal(4, 3, 3, 3))),
    ):
        onnx.save(model, str(tmp_path / f"{name}.onnx"))
        graph = load_onnx(tmp_path / f"{name}.onnx", tmp_path / name)
        made = to_c(graph, load("c"), tmp_path / f"{name}-c")
        files = {n: (tmp_path / f"{name}-c" / n).read_bytes() for n in made.files}
        x = normal(*graph.inputs[0].shape)
        with source_trust.own():
            session = Session(files)
        (got,) = session.run({"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))}).values()
        session.close()
        np.testing.assert_allclose(got, answer(model, x), rtol=1e-4, atol=1e-5)


def steps_answer(model: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(what the steps make of noise, what ONNX Runtime does), images channels first."""
    x = normal(*shape)
    steps = read(model, "c")
    got = reference.run(steps, x[0].transpose(1, 2, 0))[steps.result]
    return got.transpose(2, 0, 1), answer(model, x)[0]


@pytest.mark.parametrize("shape", [(5,), (1, 1, 1, 5), (1, 1, 5, 1)])
def test_a_constant_along_the_width_is_not_taken_for_one_by_channel(
    shape: tuple[int, ...],
) -> None:
    node = helper.make_node("Add", ["x", "b"], ["y"], "shift")
    got, wanted = steps_answer(network([node], (1, 5, 5, 5), b=normal(*shape)), (1, 5, 5, 5))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_product_along_the_width() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], "mix"),
             helper.make_node("Conv", ["m", "k"], ["y"])]  # fmt: skip
    model = network(nodes, (1, 5, 5, 5), w=normal(5, 5), k=normal(2, 5, 1, 1))
    got, wanted = steps_answer(model, (1, 5, 5, 5))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_flattened_keep_their_order() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    model = network(nodes, (1, 3, 2, 4), s=np.array([1, 3, 8], np.int64), w=normal(24, 5))
    x = normal(1, 3, 2, 4)
    steps = read(model, "c")
    got = reference.run(steps, x[0].transpose(1, 2, 0))[steps.result]
    np.testing.assert_allclose(got.ravel(), answer(model, x)[0], rtol=1e-4, atol=1e-5)
