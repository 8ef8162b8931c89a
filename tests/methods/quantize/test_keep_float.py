"""keep_float: the layers named stay float on the engine, and only those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgecv import target
from edgecv.backends.onnxruntime.run import Session as OrtSession
from edgecv.backends.openvino.compile import compile as compile_openvino
from edgecv.backends.openvino.run import Session as OpenVinoSession
from edgecv.backends.tflite.run import Session as LiteRtSession
from edgecv.bundling.inference import graph_session
from edgecv.errors import StageError, TargetError
from edgecv.graph import Graph
from edgecv.graphs.onnx.names import node_names
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import _known_as, quantize_onnx
from edgecv.methods.quantize.onnx_weights import own_biases
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.stages.quantize import Quantize
from edgecv.target import Grid
from tests.backends.tflite_graphs import GRID, float_graph, images, net

NCHW = images().transpose(0, 3, 1, 2).copy()
LAYERS = ("stem.0", "a.0", "b", "down", "wide", "head")


@pytest.fixture(scope="module")
def onnx_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return export_onnx(net(), torch.zeros(1, 3, 24, 24), tmp_path_factory.mktemp("float"))


def float_layers(session: OrtSession) -> set[str]:
    """The layers that multiplied in float, by the profile's names."""
    (source,) = session.inputs
    feeds = {source.name: np.zeros(source.shape, source.dtype)}
    multiplies = ("conv", "gemm", "fully connected")
    return {
        x.layer
        for x in session.profile(feeds, 1).layers
        if x.precision == "fp32" and any(word in x.op.lower() for word in multiplies)
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_onnx_runtime_keeps_the_layer_float(onnx_graph: Graph, tmp_path: Path, layer: str) -> None:
    graph = quantize_onnx(onnx_graph, NCHW[:8], Grid(), tmp_path, Options(keep_float=(layer,)))
    session = OrtSession({"m": graph.path.read_bytes()})
    assert session.executed() == {"fp32": 1, "int8": 5}
    assert float_layers(session) == {layer}
    assert graph.facts["options"]["keep_float"] == [layer]


def test_a_layer_is_known_by_what_each_file_calls_it() -> None:
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = np.ones((4, 4), np.float32), np.ones(4, np.float32)
    held = [
        numpy_helper.from_array(weight, "onnx::Gemm_5"),
        numpy_helper.from_array(bias, "body.tokens.bias"),
    ]
    node = helper.make_node("Gemm", ["x", "onnx::Gemm_5", "body.tokens.bias"], ["y"],
                            "/body/tokens/MatMul/MatMulAddFusion")  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "net", ends[:1], ends[1:], held))
    own = node_names(own_biases(model))[node.name] - node_names(model)[node.name]
    (known,) = _known_as(model).values()
    assert own, "the quantized file calls it otherwise"
    assert known == node_names(model)[node.name] | own


def test_openvino_keeps_the_layers_float(onnx_graph: Graph, tmp_path: Path) -> None:
    options = Options(keep_float=("a.0.weight", "head"))
    graph = quantize_onnx(onnx_graph, NCHW[:8], Grid(), tmp_path / "g", options)
    compiled = compile_openvino(graph, target.load("openvino"), tmp_path / "o")
    files = {f: (tmp_path / "o" / f).read_bytes() for f in compiled.files}
    assert OpenVinoSession(files).executed() == {"fp32": 2, "int8": 4}


@pytest.mark.parametrize("layer", ["stem.0", "down", "wide", "head"])
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_litert_keeps_the_layer_float(tmp_path: Path, layer: str, io: str) -> None:
    options = Options(keep_float=(layer,))
    graph = quantize_tflite(float_graph(), images()[:8], GRID, io, tmp_path, options)
    ran = {layer, "head"}  # the last product is always computed in float
    assert graph.facts["executed"] == {"fp32": len(ran), "int8": 6 - len(ran)}
    assert float_layers(LiteRtSession({"m": graph.path.read_bytes()})) == ran
    assert graph.inputs[0].dtype == io


def test_what_stays_float_loses_nothing(onnx_graph: Graph, tmp_path: Path) -> None:
    """Beside the file whose layers are all float: its input is in int8 too, which costs more."""

    def answers(keep: tuple[str, ...]) -> np.ndarray:
        out = tmp_path / str(len(keep))
        graph = quantize_onnx(onnx_graph, NCHW[:16], Grid(), out, Options(keep_float=keep))
        session = graph_session(graph)
        return np.concatenate([session.run({"input": x[None]})["logits"] for x in NCHW[16:]])

    want = answers(LAYERS)
    whole, half, all_but_one = (
        float(((want - answers(keep)) ** 2).mean()) for keep in ((), LAYERS[3:], LAYERS[1:])
    )
    assert 0 < all_but_one < 0.9 * whole
    assert 0 < half < 0.9 * whole


def test_an_unknown_layer_is_refused_with_the_nearest(onnx_graph: Graph, tmp_path: Path) -> None:
    options, out = Options(keep_float=("stem.1",)), tmp_path / "out"
    with pytest.raises(StageError, match=r"no layer is called 'stem.1'.*stem\.0"):
        quantize_onnx(onnx_graph, NCHW[:2], Grid(), out, options)
    with pytest.raises(StageError, match=r"no layer is called 'stem.1'.*stem\.0"):
        quantize_tflite(float_graph(), images()[:2], GRID, "int8", out, options)
    assert not out.exists()


def test_the_edge_tpu_has_no_place_for_a_float_layer(tmp_path: Path) -> None:
    stage, options = Quantize(keep_float=("head",)), Options(keep_float=("head",))
    assert "no float kernels" in stage.check(target.load("edgetpu")).reasons[0]
    assert stage.check(target.load("tflite"))
    with pytest.raises(TargetError, match="io uint8"):
        quantize_tflite(float_graph(), images()[:2], GRID, "uint8", tmp_path, options)


def test_int8_keeps_what_the_file_itself_takes(tmp_path: Path) -> None:
    source = float_graph().knowing(tmp_path)
    made = quantize_tflite(source, images()[:8], GRID, "int8", tmp_path / "int8", Options())
    assert made.facts["own"] == source.facts["own"], "Bundle.run speaks the graph's own layout"
