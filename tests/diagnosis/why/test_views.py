"""One network looks the same whatever format it is in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgecv.backends import compile_module
from edgecv.diagnosis.why.onnx_view import OnnxView
from edgecv.graph import Graph
from edgecv.measuring.product import Product, widened
from edgecv.measuring.single_layer_graphs import onnx_twin, trial
from edgecv.methods.export.onnx import export_onnx
from edgecv.models import zoo
from edgecv.target import load

SIZE = 16
PRODUCTS = (
    Product("x", "conv", (8, 16), (10, 10), (10, 10), (3, 3), pads=(1, 1, 1, 1)),
    Product("x", "conv", (8, 12), (9, 9), (5, 5), (1, 1), (2, 2)),
    Product("x", "conv", (8, 8), (9, 9), (9, 9), (3, 3), pads=(1, 1, 1, 1), groups=8),
    Product("x", "conv", (4, 6), (9, 9), (9, 9), (3, 3), dilations=(2, 2), pads=(2, 2, 2, 2)),
    Product("x", "dense", (12, 5)),
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    torch.manual_seed(0)
    network = zoo.build("resnet8", width=8, classes=5).eval()
    return export_onnx(network, torch.zeros(1, 3, SIZE, SIZE), tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def onnx_view(graph: Graph) -> OnnxView:
    return OnnxView("model.onnx", graph.path.read_bytes(), x86=True)


def test_layers_geometry_and_macs_are_the_network_s(onnx_view: OnnxView) -> None:
    network = zoo.build("resnet8", width=8, classes=5).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, SIZE, SIZE))
    products = {p.layer: p for p in onnx_view.products}
    modules = dict(network.named_modules())
    assert set(products) == {
        n for n, m in modules.items() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    }
    assert 2 * sum(p.macs for p in products.values()) == counter.get_total_flops()
    for name, product in products.items():
        module = modules[name]
        if isinstance(module, torch.nn.Conv2d):
            assert product.channels == (module.in_channels, module.out_channels)
            assert (product.kernel, product.strides) == (module.kernel_size, module.stride)
    assert {p.layer: p.fixed for p in products.values() if any(p.fixed)} == {
        "stem.0": (True, False),
        "head": (False, True),
    }


def test_openvino_s_form_is_the_same(onnx_view: OnnxView, graph: Graph, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from edgecv.diagnosis.why.ir_view import IrView

    compiled = compile_module("openvino").compile(graph, load("openvino"), tmp_path)
    view = IrView({name: (tmp_path / name).read_bytes() for name in compiled.files})
    wanted = {p.layer: replace(p, unfused="") for p in onnx_view.products}
    assert {p.layer: p for p in view.products} == wanted
    assert view.transposes == ()
    assert view.without_transposes() is None
    assert view.without_subnormals() is None
    assert sum(v.ndim == 4 and v.size > 100 for _, v in view.floats()) == 9


def test_openvino_transpositions_are_found_and_taken_out(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from edgecv.backends.openvino.run import Session
    from edgecv.diagnosis.why.ir_view import IrView
    from edgecv.runtime.spec import TensorSpec
    from tests.diagnosis.why.graphs import HW, Build, feeds

    build = Build()
    x = build.node("Transpose", [build.conv("x", "a", integer=False)], "t", perm=[0, 2, 3, 1])
    (tmp_path / "model.onnx").write_bytes(build.model(x, (1, HW, HW, 4)))
    ends = [(TensorSpec(n, "float32", ()),) for n in ("x", "t")]
    graph = Graph(tmp_path / "model.onnx", "onnx", "fp32", *ends)
    compiled = compile_module("openvino").compile(graph, load("openvino"), tmp_path / "out")
    view = IrView({name: (tmp_path / "out" / name).read_bytes() for name in compiled.files})
    assert [t.between for t in view.transposes] == [("a", "")]
    mended = view.without_transposes()
    assert mended is not None
    assert IrView(mended).transposes == ()
    shapes = [Session(files).run(feeds())["t"].shape for files in (view.files, mended)]
    assert shapes == [(1, HW, HW, 4)] * 2


def test_openvino_layers_in_float_run_in_int8_when_mended(
    onnx_view: OnnxView, graph: Graph, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    from edgecv.backends.openvino.run import Session
    from edgecv.diagnosis.why.ir_view import IrView

    compiled = compile_module("openvino").compile(graph, load("openvino"), tmp_path)
    view = IrView({name: (tmp_path / name).read_bytes() for name in compiled.files})
    image = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    layers = {p.layer for p in onnx_view.products} - {"stem.0", "head"}
    mended = view.in_integers(layers, {"input": image})
    assert mended is not None
    assert Session(mended).executed() == {"int8": 8, "fp32": 2}
    shipped, changed = (Session(f).run({"input": image})["logits"] for f in (view.files, mended))
    assert np.square(changed - shipped).sum() < 0.05 * np.square(shipped).sum()
    assert view.in_integers({"nothing"}, {"input": image}) is None


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("product", PRODUCTS, ids=lambda p: f"{p.kind}-{p.channels}")
def test_a_twin_is_the_layer_that_it_stands_for(product: Product, integer: bool) -> None:
    content, _ = onnx_twin(product, integer)
    (seen,) = OnnxView("twin.onnx", content, x86=True).products
    grids = {"activations": "uint8", "weights": "int8"} if integer else {}
    wanted = replace(product, fixed=(True, True), unfused="", **grids)
    assert replace(seen, layer="x", unfused="") == wanted


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("product", PRODUCTS, ids=lambda p: f"{p.kind}-{p.channels}")
def test_a_tflite_twin_is_the_layer_that_it_stands_for(product: Product, integer: bool) -> None:
    pytest.importorskip("ai_edge_litert")
    from edgecv.backends.tflite.single_layer import twin
    from edgecv.diagnosis.why.tflite_view import TfliteView

    files, _ = twin(product, integer)
    (seen,) = TfliteView("twin", *files.values()).products
    grids = {"activations": "int8", "weights": "int8"} if integer else {}
    assert replace(seen, layer="x") == replace(product, fixed=(True, True), **grids)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tflite"])
def test_twins_run_in_the_precision_that_was_asked_for(engine: str) -> None:
    pytest.importorskip({"tflite": "ai_edge_litert"}.get(engine, engine))
    product = PRODUCTS[0]
    for integer, precision in ((False, "fp32"), (True, "int8")):
        made = trial(product, engine, integer, 1)
        made.open()()
        assert made.session is not None
        assert made.session.executed() == {precision: 1}
        made.close()
    chain = trial(widened(product, (8, 8)), engine, False, 1, chain=3)
    chain.open()()
    assert chain.session is not None
    assert chain.session.executed() == {"fp32": 3}
    chain.close()


def test_a_depthwise_twin_stays_depthwise() -> None:
    wide = widened(PRODUCTS[2], (16, 16))
    assert (wide.channels, wide.groups) == ((16, 16), 16)
    assert widened(PRODUCTS[0], (16, 32)).groups == 1


def test_tflite_mends() -> None:
    pytest.importorskip("ai_edge_litert")
    from edgecv.backends.tflite.run import Session
    from edgecv.backends.tflite.single_layer import twin
    from edgecv.diagnosis.why.tflite_view import TfliteView
    from edgecv.graphs.tflite import flatbuffer

    product = Product("x", "conv", (4, 4), (6, 6), (6, 6), (1, 1))
    files, feeds = twin(product, False)
    model = flatbuffer.parse(*files.values(), "twin")
    graph = flatbuffer.graph_of(model)
    order, out = flatbuffer.new("TensorT"), flatbuffer.new("TensorT")
    order.name, order.shape, order.type = b"order", [4], flatbuffer.enum("TensorType", "INT32")
    flatbuffer.set_constant(model, order, np.array([0, 2, 1, 3], np.int32))
    out.name, out.shape, out.type = b"turned", [1, 6, 6, 4], 0
    graph.tensors += [order, out]
    last = len(graph.tensors) - 1
    turn = flatbuffer.new("OperatorT")
    turn.opcodeIndex = flatbuffer.add_op(model, "TRANSPOSE")
    turn.inputs, turn.outputs = [graph.outputs[0], last - 1], [last]
    graph.operators.append(turn)
    graph.outputs = [last]
    flatbuffer.sign(model, ("x",), ("y",))
    view = TfliteView("model.tflite", flatbuffer.written(model))
    assert len(view.transposes) == 1
    assert view.without_subnormals() is None
    mended = view.without_transposes()
    assert mended is not None
    assert TfliteView("model.tflite", *mended.values()).transposes == ()
    shipped, changed = (Session(f).run(feeds)["y"] for f in (view.files, mended))
    assert np.array_equal(shipped, changed.transpose(0, 2, 1, 3))
    assert sum(v.size for _, v in view.activations(feeds)) == 2 * 6 * 6 * 4
