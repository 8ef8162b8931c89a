"""NNCF's quantizer: integers that OpenVINO runs as such, layers kept float, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from pydantic import ValidationError
from torch import nn

from edgecv.backends import compile_module, run_module
from edgecv.bundling.inference import plain_answers
from edgecv.errors import MissingExtraError, ModelError, StageError
from edgecv.graph import Graph
from edgecv.installation import cure
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.nncf import quantize_nncf
from edgecv.methods.quantize.options import Options, for_nncf, without
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.methods.quantize.search import other_engines
from edgecv.runtime.fidelity import compare
from edgecv.stages.quantize import Quantize
from edgecv.target import Grid, load
from tests.networks import SIZE, context, conv, images, seeded

pytest.importorskip("nncf")
pytest.importorskip("openvino")

FULL, SEVEN = Grid(reduce_range=False), Grid(reduce_range=True)
START = for_nncf(Options(), ())


def network() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(conv(3, 16), nn.ReLU()),
        nn.Sequential(conv(16, 16, groups=16), nn.Hardswish()),
        nn.Sequential(conv(16, 24), nn.ReLU()),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(24 * 16, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    module = seeded(network).eval()
    return export_onnx(module, torch.zeros(1, 3, SIZE, SIZE), tmp_path_factory.mktemp("float"))


def samples(count: int = 8) -> np.ndarray:
    pixels = images(count).pixels.astype(np.float32)
    return np.ascontiguousarray(((pixels - 127) / 64).transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def made(floats: Graph, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return quantize_nncf(floats, samples(), FULL, tmp_path_factory.mktemp("int8"), START)


def weights(graph: Graph) -> list[int]:
    """The largest integer of each layer that multiplies."""
    model = onnx.load_model(str(graph.path)).graph
    held = {t.name: numpy_helper.to_array(t) for t in model.initializer}
    makers = {n.output[0]: n for n in model.node if n.op_type == "DequantizeLinear"}
    layers = [n for n in model.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    found = [held[makers[n.input[1]].input[0]] for n in layers if n.input[1] in makers]
    return [int(np.abs(w.astype(int)).max()) for w in found]


def ran(graph: Graph, out: Path) -> dict[str, int]:
    """Compute layers of the compiled artifact by precision."""
    target = load("openvino")
    compiled = compile_module("openvino").compile(graph, target, out)
    files = {name: (out / name).read_bytes() for name in compiled.files}
    session = run_module("openvino").Session(files)
    try:
        return dict(session.executed())
    finally:
        session.close()


def test_openvino_runs_every_layer_in_int8_and_the_answers_stay(
    floats: Graph, made: Graph, tmp_path: Path
) -> None:
    assert ran(made, tmp_path) == {"int8": 4}
    ctx = context(tmp_path / "c")
    before, after = (plain_answers(g, images(20, 1).pixels, ctx.preprocess) for g in (floats, made))
    assert compare(before[0], after[0]).sqnr_db > 20
    assert made.facts["quantizer"] == "nncf"
    assert made.facts["versions"]["nncf"]
    assert "rounding" not in made.facts["options"]
    scales = {n.input[1] for n in onnx.load_model(str(made.path)).graph.node
              if n.op_type == "QuantizeLinear"}  # fmt: skip
    held = {t.name: t for t in onnx.load_model(str(made.path)).graph.initializer}
    assert all(not held[s].dims for s in scales), "one scale for each tensor of activations"


def test_the_same_bytes_and_seven_bits_where_products_saturate(
    floats: Graph, made: Graph, tmp_path: Path
) -> None:
    again = quantize_nncf(floats, samples(), FULL, tmp_path / "again", START)
    assert again.path.read_bytes() == made.path.read_bytes()
    seven = quantize_nncf(floats, samples(), SEVEN, tmp_path / "seven", START)
    assert all(largest > 64 for largest in weights(made))
    assert [largest <= 64 for largest in weights(seven)] == [True, False, True, True], (
        "a kernel for each channel has no neighbours to saturate with"
    )


def test_a_layer_kept_float_is_out_of_its_scope(floats: Graph, tmp_path: Path) -> None:
    target = load("openvino").model_copy(update={"grid": FULL})
    ctx = context(tmp_path / "c", target=target)
    options = for_nncf(Options(keep_float=("2.0",), fast_bias_correction=False), ())
    graph, parity = Quantizer(floats, ctx, 16).make(options, tmp_path / "q")
    assert ran(graph, tmp_path) == {"int8": 3, "fp32": 1}
    assert parity.sqnr_db > 20
    with pytest.raises(StageError, match="no layer is called 'nothing'"):
        quantize_nncf(floats, samples(), FULL, tmp_path / "x", Options(
            **{**vars(START), "keep_float": ("nothing",)}))  # fmt: skip
    assert not (tmp_path / "x").exists()


def test_without_nncf_the_extra_is_named(
    floats: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent").mkdir()
    text = 'raise ModuleNotFoundError("No module named \'nncf\'", name="nncf")\n'
    (tmp_path / "absent" / "nncf.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "absent"))
    said = re.escape(f"nncf is not installed ({cure('nncf', 'nncf')})")
    with pytest.raises(MissingExtraError, match=said) as e:
        quantize_nncf(floats, samples(), FULL, tmp_path / "out", START)
    assert e.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_network_that_learned_its_scales_is_refused(floats: Graph, tmp_path: Path) -> None:
    learned = Graph(floats.path, "onnx", "fp32", floats.inputs, floats.outputs, {"learned": {}})
    with pytest.raises(ModelError, match="knows nothing of scales that training learned"):
        quantize_nncf(learned, samples(), FULL, tmp_path / "out", START)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"engine": "nncf", "rounding": "gptq"}, "engine nncf has no rounding: gptq"),
        ({"engine": "nncf", "equalization": True}, "engine nncf has no equalization: true"),
        ({"engine": "nncf", "weight_bits": 4}, "engine nncf has no weight_bits: 4"),
        ({"engine": "nncf", "calibration": "entropy"}, "no calibration: entropy; it has minmax"),
        ({"engine": "nncf", "precision": "fp16"}, "engine nncf makes int8, not fp16"),
        ({"preset": "mixed"}, "preset: of engine nncf alone"),
        ({"smooth_quant": False}, "smooth_quant: of engine nncf alone"),
    ],
)
def test_knobs_of_the_other_engine_are_refused(knobs: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Quantize(**knobs)


def test_its_own_start_and_what_the_user_set() -> None:
    plain = Quantize(engine="nncf").options()
    assert (plain.calibration, plain.rounding, without(plain)) == ("minmax", "nearest", "")
    assert Quantize(engine="nncf", calibration="mse").options().calibration == "mse"
    assert Quantize().options() == Options()
    assert "engine" not in Options().to_json()
    reasons = Quantize(engine="nncf").check(load("cpu")).reasons
    assert reasons == ("engine nncf quantizes for OpenVINO targets alone",)
    assert Quantize(engine="nncf").check(load("nuc"))


def test_a_search_for_openvino_tries_it_where_it_has_what_was_asked(
    floats: Graph, tmp_path: Path
) -> None:
    def others(target: str, **knobs: object) -> tuple[Options, ...]:
        ctx = context(tmp_path, target=load(target))
        start = Options(**knobs)  # type: ignore[arg-type]
        return other_engines(floats, ctx, start, frozenset(knobs))

    assert others("openvino") == (START,)
    assert others("openvino", calibration="mse")[0].calibration == "mse"
    assert others("openvino", keep_float=("2.0",))[0].keep_float == ("2.0",)
    assert others("openvino", rounding="adaround") == ()
    assert others("openvino", engine="edgecv") == ()
    assert others("cpu") == ()
