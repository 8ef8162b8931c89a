"""Operators with a quantizer behind them: OpenVINO's fused kernels answer as the file does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("openvino")

from edgecv.backends.onnxruntime import run as onnxruntime
from edgecv.backends.openvino.compile import compile
from edgecv.backends.openvino.run import Session
from edgecv.graph import Graph
from edgecv.graphs.openvino.files import FILES
from edgecv.runtime.fidelity import Energy
from edgecv.runtime.spec import TensorSpec
from edgecv.target import Target

TARGET = Target(name="t", backend="openvino", graph="onnx")
SHAPE = (1, 12, 8, 8)
CHANNELS = np.linspace(-1, 1.5, 12, dtype=np.float32).reshape(1, 12, 1, 1)
OPERATORS: dict[str, tuple[str, list[np.ndarray], dict[str, object]]] = {
    **{op: (op, [], {}) for op in (
        "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Softplus", "Softsign", "HardSwish", "Erf", "Elu",
        "LeakyRelu", "HardSigmoid", "Mish", "GlobalAveragePool", "GlobalMaxPool",
    )},
    **{f"{op} {axes}": (op, [np.array(axes)], {"keepdims": int(1 < len(axes) < 4)})
       for op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2")
       for axes in ([1], [3], [2, 3], [1, 2, 3], [0, 1, 2, 3])},
    **{f"{op} by channel": (op, [CHANNELS], {}) for op in ("Add", "Mul", "Sub", "Max", "Min")},
    "MaxPool": ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
    "AveragePool": ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "Softmax": ("Softmax", [], {"axis": 1}),
    "LpNormalization": ("LpNormalization", [], {"axis": 1, "p": 2}),
    "Transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    "DepthToSpace": ("DepthToSpace", [], {"blocksize": 2}),
}  # fmt: skip


def quantized(name: str, ends: tuple[float, float], nodes: list, held: list) -> str:
    """A uint8 Q/DQ pair behind a tensor whose values lie between those ends."""
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    scale = (high - low) / 255
    held += [
        numpy_helper.from_array(np.array(scale, np.float32), f"{name}_s"),
        numpy_helper.from_array(np.array(round(-low / scale), np.uint8), f"{name}_z"),
    ]
    grid = [f"{name}_s", f"{name}_z"]
    nodes += [
        helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_d"]),
    ]
    return f"{name}_d"


def dense(name: str, inputs: int, nodes: list, held: list) -> None:
    """An int8 layer that reads it and answers y (1, 5): what is before it becomes integers."""
    weights = np.random.default_rng(1).integers(-63, 64, (inputs, 5))  # fit without VNNI too
    held += [
        numpy_helper.from_array(np.array([1, -1]), "row"),
        numpy_helper.from_array(weights.astype(np.int8), "w_q"),
        numpy_helper.from_array(np.full(5, 0.01, np.float32), "w_s"),
        numpy_helper.from_array(np.zeros(5, np.int8), "w_z"),
    ]
    nodes += [
        helper.make_node("Reshape", [name, "row"], ["flat"]),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]


def model(nodes: list, held: list, output: str) -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", SHAPE), (output, None))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    opset = [helper.make_opsetid("", 18)]
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opset, ir_version=9)
    )


def answers(session: onnxruntime.Session, images: np.ndarray) -> list[np.ndarray]:
    return [next(iter(session.run({"x": image[None]}).values())) for image in images]


@pytest.mark.parametrize("reads", ["floats", "positive floats", "integers"])
@pytest.mark.parametrize("name", OPERATORS)
def test_it_answers_as_the_file_does(name: str, reads: str, tmp_path: Path) -> None:
    op, constants, how = OPERATORS[name]
    rng = np.random.default_rng(0)
    strength = np.linspace(0.3, 1, 12, dtype=np.float32).reshape(-1, 1, 1, 1)
    images = rng.normal(size=(12, *SHAPE[1:])).astype(np.float32) * strength + np.float32(0.2)
    nodes, held = list[onnx.NodeProto](), list[onnx.TensorProto]()
    read = "x"
    if reads == "positive floats":
        images = np.abs(images)
    if reads == "integers":
        read = quantized("x", (images.min(), images.max()), nodes, held)
    held += [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(constants)]
    given = [f"c{i}" for i in range(len(constants))]
    nodes.append(helper.make_node(op, [read, *given], ["r"], name=name, **how))
    floats = model(nodes, held, "r").SerializeToString()
    found = np.stack(answers(onnxruntime.plain({"m": floats}), images))
    last = quantized("r", (found.min(), found.max()), nodes, held)
    dense(last, found[0].size, nodes, held)
    made = model(nodes, held, "y")
    onnx.save(made, str(tmp_path / "model.onnx"))
    shape = tuple(d.dim_value for d in made.graph.output[0].type.tensor_type.shape.dim)
    spec = TensorSpec("x", "float32", SHAPE, "NCHW"), TensorSpec("y", "float32", shape)
    graph = Graph(tmp_path / "model.onnx", "onnx", "int8", (spec[0],), (spec[1],))
    compile(graph, TARGET, tmp_path / "ir")
    session = Session({f: (tmp_path / "ir" / f).read_bytes() for f in FILES})
    compared = Energy()
    expected = answers(onnxruntime.plain({"m": made.SerializeToString()}), images)
    for a, b in zip(expected, answers(session, images), strict=True):
        compared.add(a, b)
    # a half is rounded the other way now and then: a step of 255
    assert compared.sqnr_db > 28
