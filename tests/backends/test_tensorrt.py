"""TensorRT engines are built without a GPU, and running one without a GPU says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.backends.tensorrt.compile import compile
from edgecv.backends.tensorrt.run import Cuda, Session, count_layers, probe, profiled_layers
from edgecv.errors import EngineError, NoCudaDevice, TargetError, UnsupportedError
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.target import Grid, Target
from tests.backends import onnx_graphs as graphs

GRID = Grid(activations="int8", symmetric=True, quantize_bias=False)


def target(capability: str | None) -> Target:
    return Target(
        name="t", backend="tensorrt", graph="onnx", grid=GRID, compute_capability=capability
    )


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return graphs.float_graph(tmp_path_factory.mktemp("fp32"), width=128)


@pytest.fixture(scope="module")
def no_gpu() -> None:
    try:
        Cuda()
    except NoCudaDevice:
        return
    pytest.skip("this machine has an NVIDIA GPU")


def test_engines_are_built_and_int8_is_another_engine(fp32: Graph, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    int8 = graphs.int8_graph(fp32, tmp_path / "graph", GRID)
    first = compile(fp32, target("8.9"), tmp_path / "a")
    compile(fp32, target("8.9"), tmp_path / "b")
    compile(int8, target("8.9"), tmp_path / "c")
    assert first.files == ("model.engine", "model.onnx")
    assert first.compiled
    assert "tensorrt_rtx" in first.versions
    a, b, c = ((tmp_path / d / "model.engine").read_bytes() for d in "abc")
    assert a == b, "two builds of one network differ"
    assert a != c
    assert (tmp_path / "a" / "model.onnx").read_bytes() == fp32.path.read_bytes()


def test_constants_in_arithmetic_do_not_stop_an_int8_engine(tmp_path: Path) -> None:
    """GELU is written with constants, which TensorRT takes in float only."""
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.GELU(), nn.Linear(64, 10))
    graph = export_onnx(net, torch.zeros(graphs.SHAPE), tmp_path / "graph")
    int8 = graphs.int8_graph(graph, tmp_path / "int8", GRID)
    assert compile(int8, target("8.9"), tmp_path / "out").compiled


@pytest.mark.usefixtures("no_gpu")
def test_a_capability_that_is_not_offered_delivers_the_network(fp32: Graph, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    made = compile(fp32, target("8.7"), tmp_path)
    assert not made.compiled
    assert made.files == ("model.onnx",)
    assert not (tmp_path / "model.engine").exists()
    assert "8.7" in made.notes[0]
    assert "trtexec" in made.notes[0]


def test_a_network_it_cannot_read_is_one_line(fp32: Graph, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(fp32.path.read_bytes()[:3000])
    graph = Graph(damaged, "onnx", "fp32", fp32.inputs, fp32.outputs)
    with pytest.raises(EngineError) as caught:
        compile(graph, target("8.9"), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "model.engine").exists()


@pytest.mark.parametrize("capability", [None, "89", "8.9.1", "ada"])
def test_a_profile_must_name_a_capability(
    fp32: Graph, tmp_path: Path, capability: str | None
) -> None:
    with pytest.raises(TargetError, match="compute_capability"):
        compile(fp32, target(capability), tmp_path)


def test_compile_refuses_another_format(fp32: Graph, tmp_path: Path) -> None:
    tflite = Graph(fp32.path, "tflite", "fp32", fp32.inputs, fp32.outputs)
    with pytest.raises(UnsupportedError):
        compile(tflite, target("8.9"), tmp_path)


@pytest.mark.usefixtures("no_gpu")
def test_running_without_a_gpu_says_so() -> None:
    with pytest.raises(NoCudaDevice, match="NVIDIA"):
        Session({"model.engine": b"any"})
    found = probe()
    assert not found.available
    assert found.reason


def test_the_session_calls_what_the_installed_tensorrt_has() -> None:
    """All that a machine without a GPU can prove of the run path."""
    trt = pytest.importorskip("tensorrt_rtx")
    assert callable(trt.nptype)
    assert {"INPUT", "OUTPUT"} <= set(dir(trt.TensorIOMode))
    assert "JSON" in dir(trt.LayerInformationFormat)
    for kind, names in (
        (trt.Runtime, "deserialize_cuda_engine"),
        (trt.ICudaEngine, "create_execution_context create_engine_inspector num_io_tensors"),
        (trt.ICudaEngine, "get_tensor_name get_tensor_mode get_tensor_shape get_tensor_dtype"),
        (trt.IExecutionContext, "set_tensor_address execute_async_v3 profiler"),
        (trt.IProfiler, "report_layer_time"),
        (trt.EngineInspector, "get_engine_information"),
    ):
        assert set(names.split()) <= set(dir(kind))


def test_the_inspectors_layers_are_counted_by_input_precision() -> None:
    def layer(kind: str, datatype: str) -> dict[str, object]:
        return {"LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": datatype}]}

    information = {
        "Layers": [
            layer("CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format"),
            layer("CaskGemmConvolution", "Row major linear FP32"),
            layer("PoolingV2", "Row major linear FP32"),
            "a layer of an engine without details",
        ]
    }
    assert count_layers(information) == {"int8": 1, "fp32": 1}


def test_the_profilers_times_and_the_inspectors_layers_by_hand() -> None:
    image = {"Dimensions": [1, 16, 8, 8], "Format/Datatype": "Row major Int8 format"}
    conv = {
        "Name": "/stem/stem.0/Conv + /stem/stem.2/Relu_myl0_3",
        "LayerType": "CaskConvolution",
        "Inputs": [image],
        "Outputs": [image],
        "Weights": {"Type": "Int8", "Count": 2304},
        "Bias": {"Type": "Float", "Count": 16},
        "Metadata": "[ONNX Layer: /stem/stem.0/Conv]\x1e[ONNX Layer: /stem/stem.2/Relu]",
    }
    calls = {conv["Name"]: [9.0, 0.5, 0.5, 0.5, 0.7], "unknown": [9.0, 0.25]}
    one, other = profiled_layers({"Layers": [conv]}, calls, warmup=1)
    assert (one.layer, one.op, one.precision) == ("stem.0", "CaskConvolution", "int8")
    assert one.time_ms == pytest.approx(0.5)
    assert one.bytes == 2 * 1024 + 2304 + 4 * 16
    assert (other.layer, other.precision, other.bytes) == ("", "", None)
    assert other.time_ms == pytest.approx(0.25)


def test_the_device_side_imports_without_torch() -> None:
    graphs.imports_without_torch("tensorrt")
