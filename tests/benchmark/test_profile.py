"""A profile names the layers of a network that edgecv itself exported, on every engine here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
import torch

from edgecv import child
from edgecv.backends import compile_module, run_module
from edgecv.benchmark.profile import HEAD, RIGHT, profile, rows, summary
from edgecv.errors import BundleError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export._tflite_names import copy_names, name_weights
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.models import zoo
from edgecv.runtime.archive import write_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.target import Grid, Target
from edgecv.text_table import lines

SIZE = 32
ENGINES = ("onnxruntime", "openvino", "tflite")
LAYERS = {
    "stem.0", "stage1.0.conv1", "stage1.0.conv2",
    "stage2.0.conv1", "stage2.0.conv2", "stage2.0.shortcut.0",
    "stage3.0.conv1", "stage3.0.conv2", "stage3.0.shortcut.0", "head",
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """resnet8 with batch norms that do something when they are folded."""
    torch.manual_seed(0)
    made = zoo.build("resnet8")
    for part in made.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(part.weight)
    return made.eval()


@pytest.fixture(scope="module")
def graphs(
    network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Graph]:
    """graphs("onnx" or "tflite", "fp32" or "int8"), each made once."""
    room, made = tmp_path_factory.mktemp("graphs"), {}
    example = torch.zeros(1, 3, SIZE, SIZE)
    images = np.random.default_rng(0).normal(size=(16, SIZE, SIZE, 3)).astype(np.float32)

    def make(kind: str, precision: str) -> Graph:
        out = room / f"{kind}-{precision}"
        if kind == "onnx":
            if precision == "fp32":
                return export_onnx(network, example, out)
            return quantize_onnx(get(kind, "fp32"), images.transpose(0, 3, 1, 2), Grid(), out)
        if precision == "fp32":
            graph = export_tflite(network, example, out)
            model = flatbuffer.read(graph.path)
            name_weights(model, network.state_dict())
        else:
            floats = get(kind, "fp32")
            graph = quantize_tflite(floats, images, Grid(activations="int8"), "int8", out)
            model = flatbuffer.read(graph.path)
            copy_names(model, flatbuffer.read(floats.path))
        flatbuffer.write(model, graph.path)
        return graph

    def get(kind: str, precision: str) -> Graph:
        key = kind, precision
        return made.get(key) or made.setdefault(key, make(*key))

    return get


@pytest.fixture
def bundle(graphs: Callable[..., Graph], tmp_path: Path) -> Callable[..., Path]:
    """bundle(engine, precision) -> a bundle of that network, with one golden."""

    def make(engine: str, precision: str, goldens: bool = True) -> Path:
        kind = "tflite" if engine == "tflite" else "onnx"
        target = Target(name="t", backend=engine, graph=kind)
        graph = graphs(kind, precision)
        made = compile_module(engine).compile(graph, target, tmp_path / engine / precision)
        files = {n: (tmp_path / engine / precision / n).read_bytes() for n in made.files}
        session = run_module(engine).Session(files)
        (source,) = session.inputs
        image = np.random.default_rng(1).integers(-99, 99, source.shape).astype(source.dtype)
        outputs = session.run({source.name: image})
        grid = {} if source.scale is None else {
            "dtype": source.dtype, "scale": source.scale, "zero_point": source.zero_point
        }  # fmt: skip
        pre = Preprocess((SIZE, SIZE), 3, (127.0,), (64.0,), layout=source.layout, **grid)
        manifest = {
            **{"name": "r8", "task": "classification", "target": "t", "engine": engine},
            "precision": precision,
            "input": {"name": source.name, "preprocess": pre.to_json()},
            "inputs": [t.to_json() for t in session.inputs],
            "outputs": [t.to_json() for t in session.outputs],
        }
        held = ({source.name: image}, outputs) if goldens else ({}, {})
        return write_bundle(tmp_path / f"r8-{precision}.{engine}.edgecv", manifest, files, *held)

    return make


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_layer_is_named_and_has_its_precision(
    bundle: Callable[..., Path], engine: str, precision: str
) -> None:
    pytest.importorskip({"tflite": "ai_edge_litert"}.get(engine, engine))
    data = profile(bundle(engine, precision), runs=5)
    json.dumps(data)
    assert (data["engine"], data["threads"], data["reason"]) == (engine, 1, "")
    named = {layer["layer"]: layer for layer in data["layers"] if layer["layer"] in LAYERS}
    assert set(named) == LAYERS
    floats = ["fp32"] if engine == "tflite" else []  # the last product, for its answers
    assert {layer["precision"] for layer in named.values()} == {precision, *floats}
    assert all(layer["bytes"] > 0 for layer in named.values())
    assert data["total_ms"] == pytest.approx(sum(layer["time_ms"] for layer in data["layers"]))
    assert data["overhead"] == pytest.approx(data["total_ms"] / data["call_ms"])
    assert 0.1 < data["overhead"] < 10, "layers and calls measure the same thing"


def test_the_child_process_gives_the_same_layers(bundle: Callable[..., Path]) -> None:
    paths = [bundle("onnxruntime", p) for p in ("fp32", "int8")]
    job = {"bundles": [str(p) for p in paths], "threads": 2, "runs": 2}
    found = child.call("edgecv.benchmark.profile", job, "profile")["profiles"]
    assert [data["bundle"] for data in found] == [path.name for path in paths]
    assert [data["threads"] for data in found] == [2, 2]
    here = profile(paths[0], threads=2, runs=2)
    fixed = ("name", "layer", "op", "precision", "bytes")
    assert [[layer[k] for k in fixed] for layer in found[0]["layers"]] == [
        [layer[k] for k in fixed] for layer in here["layers"]
    ]


def test_a_bundle_without_goldens_is_named(bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match=r"r8-fp32\.onnxruntime\.edgecv: has no golden inputs"):
        profile(bundle("onnxruntime", "fp32", goldens=False))


def data(time_ms: float | None, reason: str = "") -> dict[str, Any]:
    layers = [
        {"name": "conv_0", "layer": "stem.0", "op": "Conv", "precision": "int8", "bytes": 1536},
        {"name": "copy", "layer": "", "op": "Transpose", "precision": "", "bytes": None},
    ]
    times = [time_ms, None if time_ms is None else 3 * time_ms]
    total = None if time_ms is None else 4 * time_ms
    timed = [{**layer, "time_ms": t} for layer, t in zip(layers, times, strict=True)]
    facts = {"bundle": "b.edgecv", "engine": "tflite", "call_ms": 0.5, "reason": reason}
    overhead = None if total is None else total / 0.5
    return {**facts, "layers": timed, "total_ms": total, "overhead": overhead}


def test_rows_by_hand() -> None:
    assert rows(data(0.125)) == [
        ["stem.0", "Conv", "int8", "0.1250", "25.0", "1.5"],
        ["copy", "Transpose", "", "0.3750", "75.0", ""],
    ]
    assert rows(data(None))[0] == ["stem.0", "Conv", "int8", "", "", "1.5"]
    assert len(lines(HEAD, rows(data(0.125)), RIGHT)) == 4
    assert summary(data(0.125)).endswith("0.500 ms, 1.00 of a call without the profiler (0.500 ms)")
    assert summary(data(None, "no profiler")).endswith("a call 0.500 ms; no times: no profiler")


def test_layers_too_short_to_be_counted_have_no_share() -> None:
    assert rows(data(0.0))[0][3:5] == ["0.0000", ""]


def test_it_imports_on_a_device() -> None:
    code = """
import sys
for name in ("torch", "onnx", "pydantic", "rich", "yaml", "PIL"): sys.modules[name] = None
import edgecv.benchmark.profile
assert not {"onnxruntime", "openvino", "ai_edge_litert"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
