"""fp16: half the bytes, the same answers, and what computes is said as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from edgecv import target
from edgecv.backends import compile_module, run_module
from edgecv.bundling.inference import graph_outputs, session_outputs
from edgecv.diagnosis.parity import tolerances
from edgecv.diagnosis.parity.layers import Form
from edgecv.diagnosis.parity.onnx_network import OnnxNetwork
from edgecv.diagnosis.parity.openvino_network import OpenVinoForm
from edgecv.diagnosis.parity.tflite_network import TfliteNetwork
from edgecv.errors import ModelError
from edgecv.fidelity import compare
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize.half import brain, halve
from edgecv.runtime.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
INTO = Preprocess(size=(12, 12), channels=3, mean=(127.0,), std=(64.0,))


class Net(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, groups=32)
        self.head = nn.Linear(32, 200)
        self.head.weight.data *= scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(nn.functional.relu6(self.a(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module", params=["onnx", "tflite"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    export = export_onnx if request.param == "onnx" else export_tflite
    return export(Net(), torch.zeros(1, 3, 12, 12), tmp_path_factory.mktemp(request.param))


def test_half_the_bytes_and_the_same_answers(source: Graph, tmp_path: Path) -> None:
    made = halve(source, tmp_path)
    assert made == Graph.load(tmp_path)
    assert made.precision == "fp16"
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)
    sizes = [g.path.stat().st_size for g in (source, made)]
    weights = 32 * 27 + 32 * 9 + 32 * 200
    assert sizes[0] - sizes[1] > 2 * weights - 2000  # some of it goes into new operators
    parity = compare(*(graph_outputs(g, PIXELS, INTO) for g in (source, made)))
    assert 40 < parity.sqnr_db < 100  # 11 bits, and really rounded
    again = halve(source, tmp_path / "again")
    assert again.path.read_bytes() == made.path.read_bytes()


@pytest.mark.parametrize("word", ["cpu", "openvino", "tflite"])
def test_engines_without_fp16_say_that_they_compute_in_fp32(word: str, tmp_path: Path) -> None:
    profile = target.load(word)
    export = export_onnx if profile.graph == "onnx" else export_tflite
    graph = halve(export(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f"), tmp_path / "h")
    compiled = compile_module(profile.backend).compile(graph, profile, tmp_path / "e")
    files = {f: (tmp_path / "e" / f).read_bytes() for f in compiled.files}
    session = run_module(profile.backend).Session(files)
    assert session.executed() == {"fp32": 3}
    feeds = {t.name: np.zeros(t.shape, t.dtype) for t in session.inputs}
    precisions = {row.precision for row in session.profile(feeds).layers if row.precision}
    assert precisions == {"fp32"}
    outputs = session_outputs(session, PIXELS, INTO)
    assert compare(graph_outputs(graph, PIXELS, INTO), outputs).sqnr_db > 45
    assert sum(map(len, files.values())) < 40_000  # 33 KB of weights in fp32, 16 in fp16


def test_a_gpu_gets_fp16_activations_between_float_ends(tmp_path: Path) -> None:
    source = export_onnx(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    made = halve(source, tmp_path / "h", compute=True)
    model = onnx.load(str(made.path))
    ends = [*model.graph.input, *model.graph.output]
    assert {e.type.tensor_type.elem_type for e in ends} == {TensorProto.FLOAT}
    held = {t.name: t.data_type for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(products) == 3
    assert {held[name] for n in products for name in n.input[1:]} == {TensorProto.FLOAT16}
    parity = compare(*(graph_outputs(g, PIXELS, INTO) for g in (source, made)))
    assert parity.sqnr_db > 40


@pytest.mark.parametrize("compute", [False, True])
def test_a_weight_beyond_fp16_is_refused_by_name(compute: bool, tmp_path: Path) -> None:
    source = export_onnx(Net(scale=1e7), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    with pytest.raises(ModelError, match=r"head.weight.*fp16 ends at 65504"):
        halve(source, tmp_path / "h", compute)


def test_what_is_quantized_already_is_refused(tmp_path: Path) -> None:
    source = export_onnx(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    with pytest.raises(ModelError, match="is fp16, not fp32"):
        halve(halve(source, tmp_path / "h"), tmp_path / "again")


@pytest.mark.parametrize("word", ["cpu", "openvino", "tflite"])
def test_the_parity_ladder_knows_halved_weights(word: str, tmp_path: Path) -> None:
    """47 dB are what fp16 keeps of a deep network, and no fault of the export."""
    profile = target.load(word)
    export = export_onnx if profile.graph == "onnx" else export_tflite
    floats = export(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    forms = []
    for graph in (floats, halve(floats, tmp_path / "h")):
        out = tmp_path / graph.precision
        compiled = compile_module(profile.backend).compile(graph, profile, out)
        files = {f: (out / f).read_bytes() for f in compiled.files}
        forms.append(graph_form(profile.backend, files))
    assert [form.precision for form in forms] == ["fp32", "fp16"]
    assert tolerances.between("fp32", "fp16", compiled=False).min_sqnr_db < 47


def graph_form(backend: str, files: dict[str, bytes]) -> Form:
    name, content = next(iter(files.items()))
    if backend == "openvino":
        return OpenVinoForm(files, name)
    return (OnnxNetwork if backend == "onnxruntime" else TfliteNetwork)(content, name)


# bf16: computed in it where the processor can, and what ran is said


def test_bf16_is_a_wish_that_travels_with_the_file(tmp_path: Path) -> None:
    source = export_onnx(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    graph = brain(source, tmp_path / "b")
    assert graph == Graph.load(tmp_path / "b")
    assert graph.precision == "bf16"
    assert graph.path.read_bytes() == source.path.read_bytes()
    profile = target.load("openvino")
    plain, asked = (
        compile_module("openvino").compile(g, profile, tmp_path / f"e{i}")
        for i, g in enumerate((source, graph))
    )
    assert plain.notes == ()
    files = {f: (tmp_path / "e1" / f).read_bytes() for f in asked.files}
    session = run_module("openvino").Session(files)
    import openvino

    has = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert session._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == (
        "bf16" if has else "f32"
    )
    assert ("bf16" in session.executed()) == has
    assert [("computed in fp32 here" in note) for note in asked.notes] == ([] if has else [True])
    assert OpenVinoForm(files, "asked").precision == "bf16", "and the parity ladder knows it"
    outputs = session_outputs(session, PIXELS, INTO)
    sqnr = compare(graph_outputs(source, PIXELS, INTO), outputs).sqnr_db
    assert sqnr > (20 if has else 80)


def test_bf16_of_an_engine_that_has_none_is_refused() -> None:
    offered = {t.name: t.precisions for t in map(target.load, ("cpu", "openvino", "tflite", "nuc"))}
    assert [name for name, found in offered.items() if "bf16" in found] == ["openvino"]


def test_int8_is_not_made_bf16(tmp_path: Path) -> None:
    source = export_onnx(Net(), torch.zeros(1, 3, 12, 12), tmp_path / "f")
    with pytest.raises(ModelError, match="is bf16, not fp32"):
        brain(brain(source, tmp_path / "a"), tmp_path / "b")
