"""Whole .onnx files as exporters and other tools write them, loaded: what they answer stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import EdgecvError, ModelError
from edgecv.methods.export.onnx import load_onnx
from edgecv.methods.quantize.for_onnx import float_products
from edgecv.methods.quantize.isolated import far_off
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Options
from edgecv.target import load
from tests.methods.export.test_onnx_entry import answer, head, normal, save

SHAPE = (1, 3, 8, 8)
LAST, HELD = head("c", 4)


def conv(x: str = "x", **given: Any) -> Any:
    return helper.make_node("Conv", [x, "w"], ["c"], **{"pads": [1, 1, 1, 1], **given})


def same(path: Path, out: Path, near: float = 1e-5) -> Any:
    """The loaded graph, after comparing what both answer."""
    graph = load_onnx(path, out)
    x = normal(*SHAPE)
    np.testing.assert_allclose(answer(graph.path, x), answer(path, x), rtol=near, atol=near)
    return graph


@pytest.mark.parametrize("scales", [(), (4,), (4, 3, 3, 3)], ids=["tensor", "channel", "block"])
def test_weights_that_are_stored_in_integers_are_floats(tmp_path: Path, scales: Any) -> None:
    opset, given = (21, {"axis": 0, "block_size": 1}) if len(scales) > 1 else (18, {"axis": 0})
    stored = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **given)
    q = np.random.default_rng(0).integers(-99, 99, (4, 3, 3, 3)).astype(np.int8)
    s = np.random.default_rng(1).uniform(0.001, 0.01, scales).astype(np.float32)
    path = save(tmp_path / "stored.onnx", [stored, conv(), *LAST], SHAPE, opset=opset, q=q, s=s,
                z=np.full(scales, 3, np.int8), **HELD)  # fmt: skip
    graph = same(path, tmp_path / "out")
    assert graph.precision == "fp32"
    assert "DequantizeLinear" not in graph.facts["ops"]


def test_a_dynamically_quantized_file_is_int8(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["m"]),
        helper.make_node("Cast", ["m"], ["g"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["g", "s"], ["y"]),
    ]
    w = np.random.default_rng(0).integers(-9, 9, (192, 5)).astype(np.int8)
    path = save(tmp_path / "dynamic.onnx", nodes, SHAPE, w=w)
    assert same(path, tmp_path / "out").precision == "int8"


def test_functions_of_the_file_become_what_they_stand_for(tmp_path: Path) -> None:
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(slope)
    function = helper.make_function(
        "my.blocks", "ConvLeaky", ["a0", "k"], ["b"],
        [helper.make_node("Conv", ["a0", "k"], ["a"]), leaky],
        [helper.make_opsetid("", 18)], ["slope"],
    )  # fmt: skip
    call = helper.make_node("ConvLeaky", ["x", "w"], ["c"], domain="my.blocks", slope=0.3)
    path = save(tmp_path / "f.onnx", [call, *LAST], SHAPE, w=normal(4, 3, 3, 3), **HELD)
    made = onnx.load(str(path))
    made.functions.append(function)
    onnx.save(made, str(path))
    assert same(path, tmp_path / "out").facts["ops"]["LeakyRelu"] == 1


@pytest.mark.parametrize("kind", [np.float64, "bfloat16"])
def test_other_floats_inside_a_float32_network_become_float32(tmp_path: Path, kind: Any) -> None:
    """ONNX Runtime has no kernels for them, so it is the float32 network that is compared."""
    to = TensorProto.DOUBLE if kind is np.float64 else TensorProto.BFLOAT16
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=to),
        conv("d"),
        helper.make_node("Cast", ["c"], ["e"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    w = normal(4, 3, 3, 3)
    path = save(tmp_path / "d.onnx", nodes, SHAPE)
    made = onnx.load(str(path))
    made.graph.initializer.append(helper.make_tensor("w", to, w.shape, w.reshape(-1)))
    onnx.save(made, str(path))
    held = numpy_helper.to_array(made.graph.initializer[0]).astype(np.float32)
    plain = save(tmp_path / "p.onnx", [conv(), *[nodes[3], nodes[4]]], SHAPE, w=held)
    plain_made = onnx.load(str(plain))
    plain_made.graph.node[1].input[0] = "c"
    onnx.save(plain_made, str(plain))
    x = normal(*SHAPE)
    got = answer(load_onnx(path, tmp_path / "out").path, x)
    np.testing.assert_allclose(got, answer(plain, x), rtol=1e-5, atol=1e-5)


def test_two_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    nodes = [conv(), *LAST]
    path = save(tmp_path / "once.onnx", nodes, SHAPE, w=normal(4, 3, 3, 3), **HELD)
    made = onnx.load(str(path))
    for node in made.graph.node:
        node.name = "layer"
    onnx.save(made, str(tmp_path / "twice.onnx"))
    x = normal(*SHAPE)
    got = answer(load_onnx(tmp_path / "twice.onnx", tmp_path / "out").path, x)
    np.testing.assert_allclose(got, answer(path, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("told", [True, False])
def test_same_of_a_dilated_convolution_keeps_the_size(
    tmp_path: Path, auto: str, told: bool
) -> None:
    """ONNX Runtime runs no such node. A kernel of 2 by 4, so that an odd pixel is left."""
    given = {"kernel_shape": [2, 4]} if told else {}
    node = helper.make_node("Conv", ["x", "w"], ["c"], auto_pad=auto, dilations=[3, 1], **given)
    small, large = [1, 1], [2, 2]  # halves of (2 - 1) 3 and (4 - 1) 1
    pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    plain = helper.make_node("Conv", ["x", "w"], ["c"], pads=pads, dilations=[3, 1])
    held = {"w": normal(4, 3, 2, 4), **HELD}
    x = normal(*SHAPE)
    want = answer(save(tmp_path / "plain.onnx", [plain, *LAST], SHAPE, **held), x)
    path = save(tmp_path / "auto.onnx", [node, *LAST], SHAPE, **held)
    got = answer(load_onnx(path, tmp_path / "out").path, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def _with(path: Path, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> Path:
    made = onnx.load(str(path))
    for name in inputs:
        made.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)))
    for name in outputs:
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(made, str(path))
    return path


def test_an_input_that_nothing_reads_goes(tmp_path: Path) -> None:
    held = {"w": normal(4, 3, 3, 3), **HELD}
    path = save(tmp_path / "one.onnx", [conv(), *LAST], SHAPE, **held)
    both = _with(save(tmp_path / "two.onnx", [conv(), *LAST], SHAPE, **held), ("im_shape",))
    x = normal(*SHAPE)
    got = answer(load_onnx(both, tmp_path / "out").path, x)
    np.testing.assert_allclose(got, answer(path, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["anchors", "x"])
def test_an_output_that_tells_nothing_of_the_image_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "net.onnx", [conv(), *LAST], SHAPE, w=normal(4, 3, 3, 3),
                anchors=normal(1, 4), **HELD)  # fmt: skip
    with pytest.raises(ModelError, match=f"net.onnx: output '{name}'") as e:
        load_onnx(_with(path, outputs=(name,)), tmp_path / "out")
    assert e.value.hint == "leave it out of the graph's outputs"


def test_a_batch_norm_in_training_mode_is_refused_by_name(tmp_path: Path) -> None:
    norm = helper.make_node("BatchNormalization", ["k", *"bbbv"], ["c", *"1234"], name="norm")
    nodes = [helper.make_node("Conv", ["x", "w"], ["k"]), norm, *LAST]
    path = save(tmp_path / "net.onnx", nodes, SHAPE, opset=8, w=normal(4, 3, 3, 3), b=normal(4),
                v=np.ones(4, np.float32), **HELD)  # fmt: skip
    with pytest.raises(EdgecvError, match=r"node 'norm' .*training mode"):
        load_onnx(path, tmp_path / "out")


def test_indices_that_a_network_ends_in_are_no_layer_that_is_rounded(tmp_path: Path) -> None:
    """ArgMax gives int64; a network of one index an image, shape (1,), is taken, too."""
    nodes = [conv(), *LAST, helper.make_node("ArgMax", ["y"], ["i"], axis=1, keepdims=0)]
    path = save(tmp_path / "net.onnx", nodes, SHAPE, w=normal(4, 3, 3, 3), **HELD)
    made = onnx.load(str(path))
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("i", TensorProto.INT64, None))
    onnx.save(made, str(path))
    graph = load_onnx(path, tmp_path / "float")
    assert [(o.shape, o.dtype) for o in graph.outputs] == [((1,), "int64")]
    quantized = quantize_onnx(graph, normal(16, *SHAPE[1:]), load("cpu").grid, tmp_path / "int8")
    images = [normal(*SHAPE) for _ in range(2)]
    assert far_off(graph.path.read_bytes(), quantized, images, 0.0) == []


def test_what_a_quantized_file_leaves_in_float_is_known(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [conv(), *LAST], SHAPE, w=normal(4, 3, 3, 3), **HELD)
    graph = load_onnx(path, tmp_path / "float")
    options = Options(keep_float=(graph_layers(graph)[-1],))
    made = quantize_onnx(graph, normal(16, *SHAPE[1:]), load("cpu").grid, tmp_path / "q", options)
    assert float_products(made.path) == list(options.keep_float)


def graph_layers(graph: Any) -> list[str]:
    nodes = onnx.load(str(graph.path)).graph.node
    return [n.name or n.output[0] for n in nodes if n.op_type in ("Conv", "Gemm")]


@pytest.mark.parametrize(("domain", "op", "says"), [
    ("ai.onnx.contrib", "Inverse", "of domain 'ai.onnx.contrib'"),
    ("com.microsoft", "GroupNorm", "no kernel of it for a CPU"),
])  # fmt: skip
def test_an_operator_that_nobody_here_runs_is_refused_by_name(
    domain: str, op: str, says: str, tmp_path: Path
) -> None:
    given = {"groups": 1, "activation": 0} if op == "GroupNorm" else {}
    reads = ["x", "g", "g"] if op == "GroupNorm" else ["x"]
    node = helper.make_node(op, reads, ["m"], domain=domain, name="odd one", **given)
    path = save(tmp_path / "net.onnx", [node, conv("m"), *LAST], SHAPE, w=normal(4, 3, 3, 3),
                g=normal(8), **HELD)  # fmt: skip
    with pytest.raises(ModelError, match=says) as e:
        load_onnx(path, tmp_path / "out")
    assert e.value.where == f"net.onnx: node 'odd one' ({op})"
    assert "operators" in e.value.hint
