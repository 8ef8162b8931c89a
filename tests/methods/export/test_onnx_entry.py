"""How a user's .onnx file begins, and what int8 makes of layers it was once wrong about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.backends.onnxruntime.tensors import with_shapes
from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.graphs.onnx.draft import attributes
from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export import _proof
from edgecv.methods.export.onnx import load_onnx
from edgecv.methods.quantize.onnx_measured import Measured
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.target import load

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def save(
    path: Path,
    nodes: list[Any],
    shape: tuple[int | str, ...],
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    **held: np.ndarray,
) -> Path:
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    domains = {n.domain for n in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def answer(path: Path | str, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def head(x: str, channels: int, classes: int = 5) -> tuple[list[Any], dict[str, np.ndarray]]:
    return [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "e"], ["y"]),
    ], {"d": normal(channels, classes), "e": normal(classes)}


# --- the input


@pytest.mark.parametrize("between", ["Cast", "Sub"])
def test_a_file_that_takes_bytes_takes_pixels_as_they_are(tmp_path: Path, between: str) -> None:
    """Cast at once, or integers first, where the input has to become bytes again."""
    last, held = head("c", 4)
    begin = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])]
    if between == "Sub":
        begin.append(helper.make_node("Max", ["t", "limit"], ["u"]))
        held["limit"] = np.array(17, np.uint8)
    nodes = [
        *begin,
        helper.make_node("Cast", ["u" if between == "Sub" else "t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["m"]),
        helper.make_node("Conv", ["m", "w"], ["c"]),
        *last,
    ]
    path = save(
        tmp_path / "bytes.onnx", nodes, ("N", 8, 6, 3), TensorProto.UINT8,
        s=np.array(1 / 255, np.float32), w=normal(4, 3, 3, 3), **held,
    )  # fmt: skip
    graph = load_onnx(path, tmp_path / "out")
    assert graph.facts["takes"] == "bytes"
    assert [(t.dtype, t.shape) for t in graph.inputs] == [("float32", (1, 3, 8, 6))]
    pixels = RNG.integers(0, 256, (1, 8, 6, 3)).astype(np.uint8)
    got = answer(graph.path, pixels.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_allclose(got, answer(path, pixels), rtol=1e-4, atol=1e-5)


def test_floats_that_are_channels_last_go_in_as_any_image(tmp_path: Path) -> None:
    last, held = head("c", 4)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
             helper.make_node("Conv", ["t", "w"], ["c"]), *last]  # fmt: skip
    path = save(tmp_path / "last.onnx", nodes, (1, "H", "W", 3), w=normal(4, 3, 3, 3), **held)
    graph = load_onnx(path, tmp_path / "out", Pins(size=(8, 6)))
    assert graph.inputs[0].shape == (1, 3, 8, 6)
    assert "Transpose" not in graph.facts["ops"]
    x = normal(1, 8, 6, 3)
    got = answer(graph.path, x.transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(got, answer(path, x), rtol=1e-4, atol=1e-5)


def test_open_sides_take_the_size_that_is_given_and_ask_for_one(tmp_path: Path) -> None:
    last, held = head("c", 4)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER"), *last]
    path = save(tmp_path / "open.onnx", nodes, ("N", 3, "H", "W"), w=normal(4, 3, 3, 3), **held)
    assert load_onnx(path, tmp_path / "out", Pins(size=(7, 9))).inputs[0].shape == (1, 3, 7, 9)
    with pytest.raises(ModelError, match=r"dimension H is dynamic \('H'\).*--input-size"):
        load_onnx(path, tmp_path / "out")


def test_a_network_that_answers_at_random_is_refused(tmp_path: Path) -> None:
    last, held = head("r", 3)
    nodes = [
        helper.make_node("Dropout", ["x", "ratio", "on"], ["r"], "lost"), *last,
    ]  # fmt: skip
    path = save(tmp_path / "drop.onnx", nodes, (1, 3, 8, 8), ratio=np.array(0.5, np.float32),
                on=np.array(True), **held)  # fmt: skip
    with pytest.raises(ModelError, match=r"'lost' \(Dropout\): answers differently each time"):
        load_onnx(path, tmp_path / "out")


def test_a_rewrite_that_changes_the_answers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(draft: Any) -> None:
        for node in draft.nodes("Relu"):
            node.op_type = "Sigmoid"

    monkeypatch.setitem(_proof.REWRITES, "gemm", wrong)
    last, held = head("r", 3)
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["r"]), *last],
                (1, 3, 8, 8), **held)  # fmt: skip
    with pytest.raises(ModelError, match=r"net.onnx: would answer differently .*\(gemm\)"):
        load_onnx(path, tmp_path / "out")


# --- int8


def quantized(path: Path, out: Path, target: str = "cpu", shift: float = 0) -> tuple[Graph, Graph]:
    graph = load_onnx(path, out / "float")
    samples = normal(16, *graph.inputs[0].shape[1:]) + np.float32(shift)
    return graph, quantize_onnx(graph, samples, load(target).grid, out / "int8")


def sqnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))


def test_a_dense_layer_over_tokens_sees_one_row_a_token(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "p"], ["c"], strides=[4, 4]),
        helper.make_node("Reshape", ["c", "s"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "u"], ["m"]),
        helper.make_node("Add", ["m", "a"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("ReduceMean", ["f", "axes"], ["q"], keepdims=0),
        helper.make_node("Gemm", ["q", "d"], ["y"]),
    ]
    path = save(
        tmp_path / "tokens.onnx", nodes, (1, 3, 16, 16), p=normal(8, 3, 4, 4) / 6,
        s=np.array([1, 8, 16], np.int64), u=normal(8, 12), a=normal(12),
        axes=np.array([1], np.int64), d=normal(12, 5),
    )  # fmt: skip
    graph, made = quantized(path, tmp_path)
    measured = Measured(onnx.load(str(graph.path)), normal(4, 3, 16, 16))
    rows = {m.count: m.mean.shape for m in measured.moments.values()}
    assert rows[4 * 16] in {(1, 8), (1, 48)}  # 16 tokens of 8 channels (or 16 places of 48)
    assert (1, 8) in {m.mean.shape for m in measured.moments.values() if m.count == 4 * 16}
    x = normal(1, 3, 16, 16)
    assert sqnr(answer(path, x), answer(made.path, x)) > 25


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_a_relu6_that_never_opens_stays_shut(tmp_path: Path, target: str) -> None:
    """Scale 1 and zero point 0 let what is below zero through where integers are signed."""
    last, held = head("z", 4)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "lo", "hi"], ["r"]),
        helper.make_node("Conv", ["r", "v", "u"], ["z"]),
        *last,
    ]
    path = save(
        tmp_path / "shut.onnx", nodes, (1, 3, 8, 8), w=normal(4, 3, 3, 3) / 9,
        b=np.full(4, -40, np.float32), lo=np.array(0, np.float32), hi=np.array(6, np.float32),
        v=normal(4, 4, 1, 1), u=normal(4), **held,
    )  # fmt: skip
    _, made = quantized(path, tmp_path, target)
    x = normal(1, 3, 8, 8)
    want = answer(path, x)
    assert np.abs(answer(made.path, x) - want).max() < 0.02 * np.abs(want).max()


def test_a_transposed_convolution_in_groups_is_right_in_int8(tmp_path: Path) -> None:
    last, held = head("c", 12)
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["z"], strides=[2, 2], group=4, output_padding=[1, 1]
    )
    nodes = [helper.make_node("Conv", ["x", "k"], ["i"]), node, *last]
    node.input[0] = "i"
    last[0].input[0] = "z"
    path = save(
        tmp_path / "up.onnx", nodes, (1, 3, 8, 8), k=normal(8, 3, 3, 3) / 5,
        w=normal(8, 3, 3, 3) * np.arange(1, 9, dtype=np.float32)[:, None, None, None],
        b=normal(12) * 20, **held,
    )  # fmt: skip
    _, made = quantized(path, tmp_path)
    x = normal(1, 3, 8, 8)
    assert sqnr(answer(path, x), answer(made.path, x)) > 25


def test_a_file_with_integers_of_its_own_keeps_them(tmp_path: Path) -> None:
    """Loaded, none of its Q/DQ nodes is folded away, and it answers the same numbers."""
    last, held = head("c", 4)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], auto_pad="SAME_LOWER"), *last]
    path = save(tmp_path / "float.onnx", nodes, (1, 3, 8, 8), w=normal(4, 3, 3, 3), b=normal(4),
                **held)  # fmt: skip
    _, made = quantized(path, tmp_path)
    again = load_onnx(made.path, tmp_path / "again")
    assert again.precision == "int8"
    x = normal(1, 3, 8, 8)
    np.testing.assert_array_equal(answer(again.path, x), answer(made.path, x))
    count = [g.facts["ops"]["QuantizeLinear"] for g in (made, again)]
    assert count[0] == count[1]
    with pytest.raises(ModelError, match="int8"):
        quantize_onnx(replace(again), normal(4, 3, 8, 8), load("cpu").grid, tmp_path / "twice")


def test_an_operator_that_inference_does_not_know_is_measured_all_the_same(tmp_path: Path) -> None:
    last, held = head("r", 4)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Inverse", ["c"], ["i"], domain="com.microsoft"),
        helper.make_node("Conv", ["i", "v"], ["r"]),
        *last,
    ]
    path = save(tmp_path / "odd.onnx", nodes, (1, 3, 8, 8), w=normal(4, 3, 3, 3),
                v=normal(4, 4, 3, 3) / 9, **held)  # fmt: skip
    graph = load_onnx(path, tmp_path / "out")
    model = onnx.load(str(graph.path))
    known = {v.name for v in with_shapes(model).graph.value_info}
    assert {n.output[0] for n in model.graph.node} - {"y"} <= known
    assert attributes(model.graph.node[0])["pads"] == [0, 0, 0, 0]
    assert quantize_onnx(graph, normal(8, 3, 8, 8), load("cpu").grid, tmp_path / "q").path.exists()
