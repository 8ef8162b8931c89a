"""Each quantized layer beside its float self: what is far off stays float, or is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgecv import target
from edgecv.bundling.inference import plain_answers
from edgecv.errors import UnsupportedError
from edgecv.fidelity import Parity, Tolerance
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize import harm, quantizer
from edgecv.methods.quantize.isolated import FarOff, far_off, kept, whole_db
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import DEFAULT, Options
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.runtime.fidelity import compare
from edgecv.target import Grid
from tests import networks as nets

LEAST = 15.0
TOLERANCE = Tolerance(6.0, 0.8)


class Net(nn.Module):
    """outlier: of a's first channel, which b makes small again: float sees nothing of it, and 256
    levels hold either that channel or the others."""

    def __init__(self, outlier: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, nets.CLASSES)
        with torch.no_grad():
            self.a.weight[0] *= outlier
            self.a.bias[0] *= outlier
            self.b.weight[:, 0] /= outlier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(self.c(x)), 1).flatten(1))


class Idle(Net):
    """A map of zeros, a constant one, and a gate that hardly moves: coarse, and of no account."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        zeros = torch.relu(self.b(x) - 1e3)
        gate = torch.sigmoid(1e-4 * self.b(x))
        x = (x + self.b(zeros)) * gate
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(self.c(x)), 1).flatten(1))


def exported(module: nn.Module, out: Path) -> Graph:
    graph = export_onnx(module.eval(), torch.zeros(1, 3, nets.SIZE, nets.SIZE), out)
    graph.save_facts()
    return graph


def pictures(count: int = 8) -> list[np.ndarray]:
    x = (nets.images(count).pixels.astype(np.float32) - 127) / 64
    return [np.ascontiguousarray(i.transpose(2, 0, 1)[None]) for i in x]


def quantized(
    source: Graph, name: str, room: Path, options: Options = DEFAULT
) -> tuple[Graph, Parity]:
    context = replace(nets.context(room), target=target.load(name))
    return Quantizer(source, context, 32).make(options, room / "int8", TOLERANCE)


@pytest.mark.parametrize("make", [Net, Idle])
def test_healthy_layers_and_idle_ones_are_left_alone(make: type[nn.Module], tmp_path: Path) -> None:
    source = exported(make(), tmp_path / "fp32")
    made = quantize_onnx(source, np.concatenate(pictures(32)), Grid(), tmp_path / "int8")
    assert far_off(source.path.read_bytes(), made, pictures(), LEAST) == []


def damaged(graph: Graph, name: str, factor: float) -> None:
    """Multiply a scale in the file."""
    model = onnx.load(str(graph.path))
    (held,) = [t for t in model.graph.initializer if t.name == name]
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(factor), name))
    onnx.save(model, str(graph.path))


@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_a_scale_that_is_wrong_names_its_layer(factor: float, tmp_path: Path) -> None:
    source = exported(Net(), tmp_path / "fp32")
    made = quantize_onnx(source, np.concatenate(pictures(32)), Grid(), tmp_path / "int8")
    damaged(made, "c.weight_scale", factor)
    (found,) = far_off(source.path.read_bytes(), made, pictures(), -np.inf)
    assert (found.layer, found.keep) == ("c", ("c",))
    assert found.own_db < 10
    assert "'c'" in found.kept


def test_what_int8_cannot_hold_stays_float_with_what_reads_it(tmp_path: Path) -> None:
    source = exported(Net(outlier=1000.0), tmp_path / "fp32")
    made, fidelity = quantized(source, "x86-avx512-vnni", tmp_path)
    assert fidelity.sqnr_db > 20
    assert {"a", "b"} <= set(made.facts["options"]["keep_float"])
    assert not {"c", "head"} & set(made.facts["options"]["keep_float"])
    (said,) = [w for w in made.facts["warnings"] if "stays float" in w]
    assert "layer 'a'" in said
    assert "'b'" in said
    assert Graph.load(made.path.parent).facts["warnings"] == made.facts["warnings"]


def test_channels_that_were_evened_out_are_compared_with_even_ones(tmp_path: Path) -> None:
    source = exported(Net(outlier=30.0), tmp_path / "fp32")
    options = Options(equalization=True)
    made, fidelity = quantized(source, "x86-avx512-vnni", tmp_path, options)
    assert fidelity.sqnr_db > 20
    assert made.facts["options"]["keep_float"] == []


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    pytest.importorskip("litert_torch")
    from edgecv.methods.export.tflite import export_tflite

    module, room = Net(outlier=1000.0).eval(), tmp_path_factory.mktemp("tflite")
    graph = export_tflite(module, torch.zeros(1, 3, nets.SIZE, nets.SIZE), room)
    graph.save_facts()
    return graph


def test_tflite_keeps_it_float(tflite: Graph, tmp_path: Path) -> None:
    made, fidelity = quantized(tflite, "tflite", tmp_path)
    assert fidelity.sqnr_db > 10  # -17 in int8 throughout
    assert set(made.facts["options"]["keep_float"]) == {"a", "b"}
    assert any("layer 'a'" in w for w in made.facts["warnings"])


def test_the_edge_tpu_has_no_floats_and_the_layer_is_named(tflite: Graph, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"layer 'a' .* no floats") as refused:
        quantized(tflite, "edgetpu", tmp_path)
    assert refused.value.hint


def test_a_tflite_scale_that_is_wrong_names_its_layer(tflite: Graph, tmp_path: Path) -> None:
    made, _ = quantized(tflite, "tflite", tmp_path)
    model = flatbuffer.read(made.path)
    graph = flatbuffer.graph_of(model)
    (weight,) = [t for t in graph.tensors if t.name.decode() == "c.weight"]
    weight.quantization.scale = [4 * s for s in weight.quantization.scale]
    flatbuffer.write(model, made.path)
    (found,) = far_off(tflite.path.read_bytes(), made, pictures(), -np.inf)
    assert found.layer == "c"
    # the measure is the one of every other figure
    context = nets.context(tmp_path)
    pixels = nets.images(8).pixels
    rows = [plain_answers(g, pixels, context.preprocess)[0] for g in (tflite, made)]
    assert compare(*rows).sqnr_db < 20


def test_the_last_look_takes_all_that_the_answers_need(tmp_path: Path) -> None:
    """No layer does much harm alone; all of them together leave less than is wanted."""
    source = exported(Net(), tmp_path / "float")
    floats, xs = source.path.read_bytes(), pictures()
    samples = np.concatenate(xs)
    grid = Grid(activations="uint8", per_channel=True)

    def made(name: str, *kept: str) -> tuple[Graph, float]:
        graph = quantize_onnx(source, samples, grid, tmp_path / name, Options(keep_float=kept))
        preprocess, pixels = nets.context(tmp_path).preprocess, nets.images(8).pixels
        answers = [plain_answers(g, pixels, preprocess)[0] for g in (source, graph)]
        return graph, compare(*answers).sqnr_db

    graph, before = made("int8")
    wanted = before + 6
    assert far_off(floats, graph, xs, wanted) == []
    found = far_off(floats, graph, xs, wanted, last=True)
    names = {name for layer in found for name in layer.keep}
    assert names
    _, after = made("mixed", *sorted(names))
    assert after >= wanted


def test_layers_whose_integers_are_the_same_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported(Net(outlier=1000.0), tmp_path / "float")
    floats, xs = source.path.read_bytes(), pictures()
    known: harm.Known = {}
    first = quantize_onnx(source, np.concatenate(xs), Grid(), tmp_path / "int8")
    found = far_off(floats, first, xs, np.inf, known=known)
    assert found
    before = dict(known)
    measured: list[str] = []
    whole = harm.Harm.whole

    def counted(own: harm.Harm, pair: harm.Pair) -> float:
        measured.append(pair.b.tensor)
        return whole(own, pair)

    monkeypatch.setattr(harm.Harm, "whole", counted)
    assert far_off(floats, first, xs, np.inf, known=known) == found
    assert (measured, known) == ([], before)
    damaged(first, "c.weight_scale", 4.0)
    far_off(floats, first, xs, np.inf, known=known)
    assert len(measured) == 1


def test_many_layers_are_told_in_few_sentences() -> None:
    found = [FarOff(f"layer{i}", 30.0, 20.0 - i, (f"layer{i}",)) for i in range(9)]
    assert kept(found[:4]) == [layer.kept for layer in reversed(found[:4])]
    said = kept(found)
    assert said[:3] == [layer.kept for layer in found[:5:-1]]
    assert said[3].startswith("6 more layers stay float, each alone leaves the network between 15")
    assert all(f"'layer{i}'" in said[3] for i in range(6))


def test_floats_that_do_not_reach_what_is_wanted_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look is one too many here: nothing that it keeps in float gives 200 dB."""
    monkeypatch.setattr(quantizer, "ROUNDS", 1)
    source = exported(Net(), tmp_path / "float")
    context = replace(nets.context(tmp_path), target=target.load("x86-avx512-vnni"))
    making = Quantizer(source, context, 32)
    made = making._held(DEFAULT, tmp_path / "int8", Tolerance(199.0, 0.0))
    assert made.facts["options"]["keep_float"] == []
    assert not any("float" in w for w in made.facts["warnings"])
    source = exported(Net(outlier=1000.0), tmp_path / "outlier")
    making = Quantizer(source, context, 32)
    better = making._held(DEFAULT, tmp_path / "mixed", Tolerance(20.0, 0.0))
    assert better.facts["options"]["keep_float"]
    assert whole_db(source.path.read_bytes(), better, making._few) >= 20


def test_the_guard_goes_as_far_as_it_is_asked_to(tmp_path: Path) -> None:
    """Missing what is asked is no error: the graph is what it is."""
    source = exported(Net(outlier=20.0), tmp_path / "float")
    context = replace(nets.context(tmp_path), target=target.load("x86-avx512-vnni"))
    making = Quantizer(source, context, 32)
    plain, before = making.make(DEFAULT, tmp_path / "plain", TOLERANCE)
    assert plain.facts["options"]["keep_float"] == []
    asked, after = making.make(DEFAULT, tmp_path / "more", TOLERANCE, least_db=before.sqnr_db + 6)
    assert asked.facts["options"]["keep_float"]
    assert after.sqnr_db > before.sqnr_db + 3
    _, far = making.make(DEFAULT, tmp_path / "far", TOLERANCE, least_db=190.0)
    assert far.sqnr_db < 190
