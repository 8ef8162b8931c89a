"""What was trained is what runs: learned ranges and scales in ONNX Q/DQ nodes and in TFLite."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from edgecv import target  # noqa: E402
from edgecv.bundling.inference import graph_outputs, torch_outputs  # noqa: E402
from edgecv.errors import UnsupportedError  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.tflite import flatbuffer  # noqa: E402
from edgecv.methods.qat import values  # noqa: E402
from edgecv.methods.qat.attach import of, rounded  # noqa: E402
from edgecv.methods.qat.biases import settle  # noqa: E402
from edgecv.methods.qat.initialisation import prepare  # noqa: E402
from edgecv.methods.quantize.vnni_saturation import neighbours, saturating  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.export import Export  # noqa: E402
from edgecv.stages.quantize import Quantize  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.qat.nets import Spelled, settled  # noqa: E402

NETWORKS = {
    "spelled": Spelled,
    "residual": lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES),
    "inverted": lambda: zoo.build("mobilenet_v2_small", width=8, classes=nets.CLASSES),
}


class Made:
    """A network with quantizers, its float graph and the int8 one of a target."""

    def __init__(self, room: Path, name: str, word: str, bits: int = 8, activations: int = 8):
        self.target = target.load(word)
        self.context = nets.context(room, target=self.target)
        self.module = settled(nets.seeded(NETWORKS[name]))
        pixels = nets.images(64).pixels
        batch = torch.from_numpy(self.context.preprocess.normalise(pixels))
        self.edit = prepare(self.module, batch, "qat", "lsq", bits, activations)
        for quantizer in of(self.module).values():  # learned, not what calibration would find
            quantizer.step.data *= 0.9
        settle(self.module, self.edit)
        self.model = Model("none:here", edits=(self.edit,))
        Export().run((self.model, self.module), replace(self.context, out=room / "float"))
        self.float = Graph.load(room / "float")
        self.learned = self.float.facts["learned"]

    def quantize(self, grid: dict | None = None) -> Graph:
        profile = self.target
        if grid:
            profile = profile.model_copy(update={"grid": profile.grid.model_copy(update=grid)})
        out = self.context.out / "int8"
        context = replace(self.context, out=out, target=profile)
        # untrained, it answers nearly the same for every image: its ranges are what is tested
        Quantize(min_sqnr_db=-100, min_agreement=0).run(self.float, context)
        return Graph.load(out)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("cpu"), "spelled", "x86-avx512-vnni")


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory) -> Made:
    """7-bit weights: what ONNX Runtime adds exactly on a processor without VNNI too."""
    return Made(tmp_path_factory.mktemp("anywhere"), "spelled", "x86-avx2", bits=7)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("tflite"), "spelled", "tflite", bits=4)


def grid_of(made: Made, tensor: str) -> tuple[float, int, int]:
    low, high, _ = made.learned["activations"][tensor]
    return (high - low) / 255, low, high


@pytest.mark.parametrize("name", NETWORKS)
def test_every_quantizer_is_found_in_the_float_graph(name: str, tmp_path: Path) -> None:
    made = Made(tmp_path, name, "cpu")
    assert made.learned["missing"] == []
    assert set(made.learned["weights"]) == set(values.weights(made.float))


def test_the_float_graph_holds_the_rounded_weights(cpu: Made) -> None:
    pixels = nets.images(8, 1).pixels
    pre = cpu.context.preprocess
    wanted = torch_outputs(rounded(cpu.module, cpu.edit), pixels, pre)
    np.testing.assert_allclose(graph_outputs(cpu.float, pixels, pre), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["cpu", "tflite"])
def test_a_folded_batch_norm_leaves_the_weights_on_the_grid(kind: str, request) -> None:
    """w' = (γ/σ) s q: with the scale s |γ|/σ the integers are q, and −q where γ < 0."""
    made = request.getfixturevalue(kind)
    table, flipped = made.learned["weights"], False
    by_shape = {}
    for tensor, weight in values.weights(made.float).items():
        scale = np.array(table[tensor]["scale"])
        q = weight.reshape(len(weight), -1) / scale.reshape(-1, 1)
        assert np.abs(q - np.rint(q)).max() < 1e-3
        by_shape.setdefault(weight.size, []).append(np.rint(q))
    for name, q in made.edit["quantizers"].items():
        if "parameter" not in q:
            continue
        own = made.module.get_parameter(q["parameter"]).detach()
        step = of(made.module)[name].size().detach()
        trained = (own.reshape(len(own), -1) / step.reshape(-1, 1)).round()
        trained = trained.clamp(q["low"], q["high"]).numpy()
        signs = [_sign(trained, found) for found in by_shape[trained.size]]
        assert any(s is not None for s in signs), name
        flipped |= any(s is not None and (s < 0).any() for s in signs)
    assert flipped, "no γ was negative: the test shows nothing"


def _sign(trained: np.ndarray, found: np.ndarray) -> np.ndarray | None:
    """+1 or −1 by output channel when one is the other's integers, else None."""
    if trained.shape != found.shape:
        return None
    sign = np.where((trained * found).sum(1) < 0, -1, 1)
    return sign if np.array_equal(trained * sign[:, None], found) else None


def test_onnx_qdq_nodes_hold_what_was_learned(cpu: Made) -> None:
    model = onnx.load(str(cpu.quantize().path))
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    seen = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in cpu.learned["activations"]:
            scale, low, _ = grid_of(cpu, node.input[0])
            assert held[node.input[1]] == pytest.approx(scale, rel=1e-6)
            assert held[node.input[2]] == round(-low / scale)
            seen.add(node.input[0])
    assert len(seen) >= 6
    floats = values.weights(cpu.float)
    for name, learned in cpu.learned["weights"].items():
        scale = np.array(learned["scale"])
        np.testing.assert_allclose(held[f"{name}_scale"].reshape(-1), scale, rtol=1e-6)
        exact = floats[name].reshape(len(floats[name]), -1) / scale.reshape(-1, 1)
        q = held[f"{name}_quantized"].reshape(exact.shape)
        assert np.abs(q - exact).max() < 1e-3


def test_tflite_tensors_hold_what_was_learned(tflite: Made) -> None:
    model = flatbuffer.read(tflite.quantize().path)
    twin = flatbuffer.graph_of(flatbuffer.read(tflite.float.path))
    main = flatbuffer.graph_of(model)
    seen = 0
    # one of the concatenation's inputs is read elsewhere too, and put on its grid by a QUANTIZE
    steps = ("QUANTIZE", "DEQUANTIZE")
    operators = [o for o in main.operators if flatbuffer.op_name(model, o) not in steps]
    # the last layer computes in float, of weights that are unpacked
    unpacked = {int(o.outputs[0]): int(o.inputs[0]) for o in main.operators if o not in operators}
    for op, other in zip(operators, twin.operators, strict=True):
        for t, u in zip(op.outputs, other.outputs, strict=True):
            name = twin.tensors[u].name.decode()
            if name in tflite.learned["activations"] and u not in twin.outputs:
                scale, low, _ = grid_of(tflite, name)
                grid = main.tensors[t].quantization
                assert grid.scale[0] == pytest.approx(scale, rel=1e-6)
                assert grid.zeroPoint[0] == round(-low / scale) - 128
                seen += 1
        name = twin.tensors[other.inputs[1]].name.decode() if len(other.inputs) > 1 else ""
        if name in tflite.learned["weights"]:
            tensor = main.tensors[unpacked.get(int(op.inputs[1]), int(op.inputs[1]))]
            scale = np.array(tflite.learned["weights"][name]["scale"])
            held = np.array(tensor.quantization.scale)  # one of a dense layer, repeated
            np.testing.assert_allclose(held, np.broadcast_to(scale, held.shape), rtol=1e-6)
            limit = 127 if tflite.learned["weights"][name]["bits"] == 8 else 7
            assert np.abs(flatbuffer.constant(model, tensor)).max() <= limit
            seen += 1
    assert seen >= 9


@pytest.mark.parametrize(("kind", "most", "mean"), [("anywhere", 1, 0.15), ("tflite", 3, 0.5)])
def test_the_engine_computes_what_was_trained(kind: str, most: int, mean: float, request) -> None:
    """most, mean: in steps of the logits."""
    made = request.getfixturevalue(kind)
    pixels = nets.images(40, 5).pixels
    pre = made.context.preprocess
    wanted = torch_outputs(made.module, pixels, pre)
    got = graph_outputs(made.quantize(), pixels, pre)
    step = float(of(made.module)["head_linear"].size().detach())
    if kind == "tflite":  # its last layer answers in float, which no learned range clips
        got = got.clip(wanted.min(), wanted.max())
    assert np.abs(got - wanted).max() <= (most + 0.01) * step
    assert np.abs(got - wanted).mean() < mean * step


def test_a_symmetric_grid_takes_the_mirrored_range(tmp_path: Path) -> None:
    made = Made(tmp_path, "residual", "tensorrt", activations=7)
    model = onnx.load(str(made.quantize().path))
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in made.learned["activations"]:
            low, high, bits = made.learned["activations"][node.input[0]]
            assert held[node.input[2]] == 0
            assert held[node.input[1]] == pytest.approx(max(-low, high) / 127, rel=1e-2)
            if low == 0 and bits == 7:  # 128 levels from 0: the very same grid
                assert held[node.input[1]] == pytest.approx(high / 127, rel=1e-6)


def test_fewer_bits_than_eight_are_said_to_be_simulated(tmp_path: Path, caplog) -> None:
    made = Made(tmp_path, "residual", "cpu", bits=4, activations=4)
    with caplog.at_level(logging.WARNING):
        made.quantize()
    assert "trained with 4 bits and run with 8" in caplog.text


def test_a_grid_that_cannot_hold_the_weights_is_refused(cpu: Made) -> None:
    with pytest.raises(UnsupportedError, match="a step per channel"):
        cpu.quantize({"per_channel": False})


def test_eight_bits_are_rounded_anew_where_the_processor_takes_seven(tmp_path: Path) -> None:
    made = Made(tmp_path, "residual", "x86-avx2")
    held = onnx.load(str(made.quantize().path)).graph.initializer
    kept = {t.name: numpy_helper.to_array(t) for t in held}
    floats = values.weights(made.float)
    again = 0
    for name, learned in made.learned["weights"].items():
        scale = np.array(learned["scale"])
        q = kept[f"{name}_quantized"].astype(int)
        pairs = neighbours(q.shape, 1 if q.ndim == 2 or q.shape[1] > 1 else len(q))
        trained = np.rint(floats[name].reshape(len(q), -1) / scale.reshape(-1, 1))
        over = saturating(trained, pairs)
        found = np.broadcast_to(kept[f"{name}_scale"], scale.shape)
        grown = over if scale.size > 1 else over.any()
        np.testing.assert_allclose(np.where(grown, scale, found), scale, rtol=1e-6)
        assert (found >= scale * (1 - 1e-6)).all()
        assert (found <= 2.1 * scale).all()
        assert not saturating(q.reshape(len(q), -1), pairs).any()
        again += int(over.sum())
    assert again > 0


def test_seven_bits_are_for_processors_that_take_no_more(tmp_path: Path) -> None:
    made = Made(tmp_path, "residual", "x86-avx2", bits=7)
    held = onnx.load(str(made.quantize().path)).graph.initializer
    weights = [t for t in held if t.name.endswith("_quantized")
               if t.data_type == onnx.TensorProto.INT8]  # fmt: skip
    limits = [np.abs(numpy_helper.to_array(t).astype(int)).max() for t in weights]
    assert len(limits) == 10
    assert max(limits) <= 63


def test_a_graph_that_was_not_trained_so_is_calibrated(tmp_path: Path) -> None:
    context = nets.context(tmp_path, target=target.load("cpu"))
    Export().run((Model("none:here"), settled(Spelled())), context)
    assert "learned" not in Graph.load(tmp_path).facts


def test_parity_opens_the_network_that_was_exported(tmp_path: Path) -> None:
    """A step that learnt its grids is no difference between PyTorch and its float graph."""
    from edgecv.diagnosis.parity.reference import torch_form

    made = Made(tmp_path, "residual", "cpu")
    model = Model("zoo:resnet8", {"width": 8, "classes": nets.CLASSES}, edits=(made.edit,))
    model.save(tmp_path / "model", made.module)
    pixels, pre = nets.images(8, 1).pixels, made.context.preprocess
    form = torch_form(tmp_path / "model", SimpleNamespace(preprocess=pre))
    got = np.concatenate([form.answers(pre.normalise(p[None]))[0] for p in pixels])
    np.testing.assert_allclose(got, graph_outputs(made.float, pixels, pre), atol=2e-5)
