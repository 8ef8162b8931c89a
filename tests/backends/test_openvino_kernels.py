"""What an .xml says of kernels, and slices that are gathered: the same numbers, read back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

ov = pytest.importorskip("openvino")

from edgecv.backends.openvino import kernels  # noqa: E402
from edgecv.backends.openvino.compile import compile  # noqa: E402
from edgecv.backends.openvino.run import Session  # noqa: E402
from edgecv.benchmark.machine import cpu_features  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.openvino.files import FILES  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.runtime.spec import TensorSpec  # noqa: E402
from edgecv.target import Grid, Target, saturates  # noqa: E402

TARGET = Target(name="t", backend="openvino", graph="onnx")
GRID = Grid(activations="uint8", per_channel=True, symmetric=False, reduce_range=saturates())


def network(tmp_path: Path, channels: int, kernel: int = 1, step: int = 0) -> Graph:
    """A convolution that reads `channels` maps, and, with a step, every so-manyth of its own."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        values = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    held = [weight("w0", channels, 3, 3, 3), weight("w1", 24, channels, kernel, kernel)]
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w1"], ["c" if step else "y"], name="narrow", pads=pads),
    ]
    if step:
        ends = {"begin": 1, "end": 24, "axis": 1, "step": step}
        held += [numpy_helper.from_array(np.array([v], np.int64), k) for k, v in ends.items()]
        nodes.append(helper.make_node("Slice", ["c", *ends], ["y"], name="picked"))
    out = len(range(1, 24, step)) if step else 24
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, out, 16, 16])
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], held),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 18)],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    specs = [TensorSpec(n, "float32", s, "NCHW") for n, s in
             (("x", (1, 3, 16, 16)), ("y", (1, out, 16, 16)))]  # fmt: skip
    return Graph(path, "onnx", "fp32", specs[:1], specs[1:], {})


def integers(graph: Graph, tmp_path: Path) -> Graph:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(16, 3, 16, 16)).astype(np.float32)
    out = tmp_path / "int8"
    out.mkdir()
    return quantize_onnx(graph, samples, GRID, out)


def files(graph: Graph, out: Path) -> dict[str, bytes]:
    compile(graph, TARGET, out)
    return {name: (out / name).read_bytes() for name in FILES}


def executed(held: dict[str, bytes]) -> Counter[str]:
    xml, weights = held.values()
    core = ov.Core()
    net = core.compile_model(core.read_model(xml, weights), "CPU")
    rows = [node.get_rt_info() for node in net.get_runtime_model().get_ops()]
    return Counter(
        row["primitiveType"].astype(str)
        for row in rows
        if row["layerType"].astype(str) == "Convolution"
    )


def test_a_narrow_layer_in_int8_names_its_kernel_and_gets_it(tmp_path: Path) -> None:
    held = files(integers(network(tmp_path, 32), tmp_path), tmp_path / "ir")
    assert held[FILES[0]].count(kernels.KERNEL.encode()) == 1
    if "avx512_vnni" in cpu_features():
        assert executed(held)["jit_avx512_1x1_I8"] == 1


def test_the_bits_are_those_of_the_engine_s_own_choice(tmp_path: Path) -> None:
    held = files(integers(network(tmp_path, 64), tmp_path), tmp_path / "ir")
    plain = dict(held)
    plain[FILES[0]] = held[FILES[0]].replace(kernels.ATTRIBUTE.encode(), b"")
    assert plain[FILES[0]] != held[FILES[0]]
    x = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)
    said, own = (Session(one).run({"x": x})["y"] for one in (held, plain))
    np.testing.assert_array_equal(said, own)


@pytest.mark.parametrize(("channels", "kernel"), [(kernels.WIDEST + 1, 1), (32, 3)])
def test_a_wide_layer_and_one_that_is_not_1x1_are_left(
    tmp_path: Path, channels: int, kernel: int
) -> None:
    held = files(integers(network(tmp_path, channels, kernel), tmp_path), tmp_path / "ir")
    assert b"primitives_priority" not in held[FILES[0]]


def test_floats_are_left(tmp_path: Path) -> None:
    held = files(network(tmp_path, 32), tmp_path / "ir")
    assert b"primitives_priority" not in held[FILES[0]]


def test_the_attribute_joins_what_a_layer_says_already() -> None:
    layer = (
        b'<net><layers><layer id="0" name="k" type="Const"><data element_type="i8"/></layer>'
        b'<layer id="1" name="c" type="Convolution"><data strides="1, 1" />'
        b'<rt_info><attribute name="fused" version="0" /></rt_info>'
        b'<input><port id="0"><dim>1</dim><dim>8</dim><dim>4</dim><dim>4</dim></port>'
        b'<port id="1"><dim>4</dim><dim>8</dim><dim>1</dim><dim>1</dim></port></input></layer>'
        b'</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="1"/></edges>'
        b"</net>"
    )
    made = kernels.chosen(layer)
    assert made.count(b"<rt_info>") == 1
    assert made.count(kernels.ATTRIBUTE.encode()) == 1


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_so_manyth_channel_is_gathered(tmp_path: Path, step: int, precision: str) -> None:
    graph = network(tmp_path, 8, step=step)
    if precision == "int8":
        graph = integers(graph, tmp_path)
    held = files(graph, tmp_path / "ir")
    assert b'type="Gather"' in held[FILES[0]]
    assert b'Slice"' not in held[FILES[0]]
    from edgecv.backends.onnxruntime.run import Session as Reference

    x = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)
    want = Reference({graph.path.name: graph.path.read_bytes()}).run({"x": x})["y"]
    near = 1e-5 if precision == "fp32" else 0.02 * float(np.abs(want).max())
    np.testing.assert_allclose(Session(held).run({"x": x})["y"], want, atol=near)
