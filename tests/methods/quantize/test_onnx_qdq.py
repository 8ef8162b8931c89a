"""quantize_onnx keeps the function, the target's grid and the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgecv import cores
from edgecv.backends import compile_module, run_module
from edgecv.backends.onnxruntime.run import Session
from edgecv.binary.countable import countable
from edgecv.bundling.inference import graph_session, plain_answers
from edgecv.errors import DataError, ModelError, StageError
from edgecv.graph import Graph
from edgecv.methods.binary.constants_for_export import frozen
from edgecv.methods.binary.modules import OneBit
from edgecv.methods.export.onnx import export_onnx, load_onnx
from edgecv.methods.quantize.onnx_measured import Measured, measure_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Calibration, Options
from edgecv.methods.quantize.ranges import BINS, CALIBRATIONS, mse, percentile
from edgecv.methods.quantize.rounding import columns
from edgecv.methods.quantize.vnni_saturation import neighbours, saturating
from edgecv.runtime.preprocess import Preprocess
from edgecv.target import Grid, load

ROOT = Path(__file__).parents[3]
X86, TENSORRT = Grid(), Grid(activations="int8", symmetric=True, quantize_bias=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, groups=16, bias=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(nn.functional.relu6(self.a(x) * 4)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return export_onnx(Net(), torch.zeros(1, 3, 12, 12), tmp_path_factory.mktemp("fp32"))


def outputs(graph: Graph, batch: np.ndarray) -> np.ndarray:
    session = graph_session(graph)
    return np.concatenate([session.run({"input": x[None]})["logits"] for x in batch])


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((expected - got) ** 2).sum()))


def constants(graph: Graph) -> dict[str, np.ndarray]:
    model = onnx.load(str(graph.path))
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("grid", [X86, TENSORRT, Grid(per_channel=False)], ids=["x86", "trt", "pt"])
def test_the_function_stays_and_the_layers_are_int8(
    fp32: Graph, tmp_path: Path, calibration: str, grid: Grid
) -> None:
    graph = quantize_onnx(fp32, images(32), grid, tmp_path, Options(calibration=calibration))
    assert graph.precision == "int8"
    assert graph == Graph.load(tmp_path)
    assert graph.facts["options"]["calibration"] == calibration
    unseen = images(32, seed=1)
    assert sqnr_db(outputs(fp32, unseen), outputs(graph, unseen)) > (
        15 if calibration == "entropy" else 25  # it clips noise hard
    )
    if grid is not TENSORRT:
        assert Session({"m": graph.path.read_bytes()}).executed() == {"int8": 3}


def test_the_bytes_are_the_same_in_another_process(fp32: Graph, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_onnx_qdq import *\n"
        "quantize_onnx(Graph.load(Path(sys.argv[1])), images(8), X86, Path(sys.argv[2]))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT), *sys.path])
    subprocess.run(
        [sys.executable, "-c", code, str(fp32.path.parent), str(tmp_path / "other")],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
    )
    mine = quantize_onnx(fp32, images(8), X86, tmp_path / "mine").path.read_bytes()
    assert mine == (tmp_path / "other" / "model.onnx").read_bytes()


def test_the_bytes_are_the_same_on_two_cores(fp32: Graph, tmp_path: Path) -> None:
    made = []
    for count in (1, 2):
        with cores.free(count):
            made.append(quantize_onnx(fp32, images(40), X86, tmp_path / str(count)))
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


def test_the_answers_are_the_same_on_two_cores(fp32: Graph) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 3)).astype(np.uint8)
    preprocess = Preprocess((12, 12), 3, (0.5,), (0.5,))
    one = plain_answers(fp32, pixels, preprocess)
    with cores.free(2):
        two = plain_answers(fp32, pixels, preprocess)
    assert len(two[0]) == 9
    np.testing.assert_array_equal(one[0], two[0])


def test_the_tensorrt_grid_is_symmetric_signed_and_its_bias_float(
    fp32: Graph, tmp_path: Path
) -> None:
    held = constants(quantize_onnx(fp32, images(8), TENSORRT, tmp_path))
    zeros = [v for k, v in held.items() if k.endswith("zero_point")]
    assert zeros
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)
    assert not any(v.dtype == np.int32 and v.ndim == 1 and v.size >= 10 for v in held.values())


def test_the_x86_grid_is_unsigned_with_a_scale_per_channel(fp32: Graph, tmp_path: Path) -> None:
    held = constants(quantize_onnx(fp32, images(8), X86, tmp_path))
    assert held["input_zero_point"].dtype == np.uint8
    scales = {v.size for k, v in held.items() if k.endswith("_scale")}
    assert {1, 16, 10} <= scales


def test_a_dense_layer_can_have_one_scale(fp32: Graph, tmp_path: Path) -> None:
    held = constants(quantize_onnx(fp32, images(8), Grid(dense_per_channel=False), tmp_path))
    assert held["head.weight_scale"].size == 1


@pytest.mark.parametrize("reconstruction", ["none", "network"])
def test_weights_of_a_reduced_range_never_saturate(
    reconstruction: str, fp32: Graph, tmp_path: Path
) -> None:
    def rows(grid: Grid, out: Path) -> int:
        options = Options(reconstruction=reconstruction)
        held = constants(quantize_onnx(fp32, images(24), grid, out, options))
        weights = [v.astype(int) for v in held.values() if v.dtype == np.int8 and v.ndim == 4]
        found = 0
        for w in weights:
            if w.shape[1] > 1:  # the others are depthwise
                pairs = neighbours(w.shape)
                assert pairs is not None
                found += int(saturating(w.reshape(len(w), -1), pairs).sum())
        return found

    assert rows(X86, tmp_path / "full") > 0
    assert rows(Grid(reduce_range=True), tmp_path / "reduced") == 0


def test_bias_correction_takes_out_the_mean_error_of_rounding(fp32: Graph, tmp_path: Path) -> None:
    """With one scale for all channels, depthwise weights round coarsely: the means drift."""
    grid, seen = Grid(per_channel=False, reduce_range=True), images(64)
    expected = outputs(fp32, seen)

    def drift(correct: bool) -> float:
        options = Options("minmax", bias_correction=correct)
        graph = quantize_onnx(fp32, seen, grid, tmp_path / str(correct), options)
        return float(np.abs((outputs(graph, seen) - expected).mean(axis=0)).max())

    assert drift(correct=True) < 0.5 * drift(correct=False)


def test_ranges_are_the_minimum_and_maximum(fp32: Graph) -> None:
    batch = images(16)
    ranges = measure_onnx(fp32, batch).ranges("minmax", symmetric=False)
    logits = outputs(fp32, batch)
    assert ranges["input"] == (batch.min(), batch.max())
    np.testing.assert_allclose(ranges["logits"], (logits.min(), logits.max()), rtol=1e-5)


def test_percentile_cuts_a_lone_outlier_and_keeps_a_small_sample() -> None:
    histogram = np.zeros(BINS, np.int64)
    histogram[: BINS // 10] = 1000
    histogram[-1] = 1
    low, high = percentile(histogram, (0.0, 100.0), symmetric=False)
    assert low == 0
    assert 9.5 < high < 10.5
    assert percentile(np.minimum(histogram, 1), (0.0, 100.0), symmetric=False) == (0, 100)


def test_mse_shrinks_for_outliers_and_not_for_uniform_values() -> None:
    uniform = np.full(BINS, 100, np.int64)
    assert mse(uniform, (-1.0, 1.0), symmetric=False) == (-1, 1)
    tailed = np.zeros(BINS, np.int64)
    tailed[: BINS // 4] = 100_000
    tailed[-1] = 1
    low, high = mse(tailed, (0.0, 4.0), symmetric=False)
    assert low == 0
    assert high < 2
    low, high = mse(tailed, (0.0, 4.0), symmetric=True)
    assert low == -high


@pytest.mark.parametrize("calibration", ["mse", "percentile", "entropy"])
def test_the_largest_logits_are_not_cut(fp32: Graph, calibration: Calibration) -> None:
    """Cut to one value, the two best classes could not be told apart."""
    batch = images(64)
    batch[7] *= 20  # one image in 64 makes the largest logits
    measured = measure_onnx(fp32, batch)
    whole, cut = (measured.ranges(how, symmetric=False) for how in ("minmax", calibration))
    assert cut["logits"] == whole["logits"]
    assert cut["input"] != whole["input"]


def smooth(count: int, seed: int = 0) -> np.ndarray:
    """Images whose pixels are like their neighbours', as photographs are."""
    return np.repeat(np.repeat(images(count, seed)[:, :, ::4, ::4], 4, axis=2), 4, axis=3)


def test_weight_rounding_brings_a_layers_output_closer(fp32: Graph, tmp_path: Path) -> None:
    unseen = columns(
        np.concatenate(smooth(64, seed=1), axis=2), (3, 3), (1, 1), (1, 1), (1,) * 4, 1
    )
    name = onnx.load(str(fp32.path)).graph.node[0].input[1]
    real = constants(fp32)[name].reshape(16, -1)

    def error(rounding: str, grid: Grid) -> float:
        out = tmp_path / f"{rounding}{grid.per_channel}"
        held = constants(quantize_onnx(fp32, smooth(64), grid, out, Options(rounding=rounding)))
        kept = held[f"{name}_quantized"].reshape(16, -1) * held[f"{name}_scale"].reshape(-1, 1)
        return float((((real - kept) @ unseen) ** 2).mean())

    for grid in (X86, Grid(per_channel=False)):
        assert error("gptq", grid) < 0.5 * error("nearest", grid)


def test_what_was_measured_serves_several_choices(fp32: Graph, tmp_path: Path) -> None:
    seen: dict[bool, Measured] = {}
    for options in (Options(), Options("percentile", "descent", bias_correction=False)):
        alone = quantize_onnx(fp32, images(16), X86, tmp_path / "a", options)
        shared = quantize_onnx(fp32, images(16), X86, tmp_path / "b", options, seen)
        assert alone.path.read_bytes() == shared.path.read_bytes()
    assert list(seen) == [False]


def poisoned() -> np.ndarray:
    batch = images(4)
    batch[2, 0, 0, 0] = np.nan
    return batch


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (images(0), "there are none"),
        (images(2)[:, :1], r"\(1, 12, 12\)"),
        (poisoned(), "number 2 holds NaN"),
    ],
    ids=["none", "shape", "nan"],
)
def test_bad_samples_are_named(fp32: Graph, tmp_path: Path, samples: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        quantize_onnx(fp32, samples, X86, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_calibration_and_a_quantized_graph_are_refused(
    fp32: Graph, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="minmax"):
        quantize_onnx(fp32, images(4), X86, tmp_path, Options("median"))
    graph = quantize_onnx(fp32, images(4), X86, tmp_path)
    with pytest.raises(ModelError, match="int8 onnx"):
        quantize_onnx(graph, images(4), X86, tmp_path / "again")


def test_overflowing_activations_are_named(tmp_path: Path) -> None:
    module = Net()
    module.head.weight.data *= 1e38  # a float32 scalar holds no more
    module.head.weight.data *= 12
    graph = export_onnx(module, torch.zeros(1, 3, 12, 12), tmp_path / "g")
    with pytest.raises(StageError, match=r"'logits'.*infinite"):
        quantize_onnx(graph, images(4) * 100, X86, tmp_path)


def test_nothing_is_printed_and_no_file_is_left(
    fp32: Graph, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    monkeypatch.chdir(tmp_path)
    quantize_onnx(fp32, images(4), X86, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "graph.json",
        "model.onnx",
        "out",
        "temp",
    ]


def test_a_quantized_users_file_passes_as_int8(fp32: Graph, tmp_path: Path) -> None:
    graph = quantize_onnx(fp32, images(8), X86, tmp_path / "a")
    again = load_onnx(graph.path, tmp_path / "b")
    assert again.precision == "int8"
    np.testing.assert_array_equal(outputs(again, images(2)), outputs(graph, images(2)))


@pytest.mark.parametrize("grid", [X86, TENSORRT], ids=["x86", "trt"])
def test_the_networks_outputs_are_not_rounded(fp32: Graph, tmp_path: Path, grid: Grid) -> None:
    """256 levels for a thousand classes: the best two are often one level."""
    graph = quantize_onnx(fp32, images(32), grid, tmp_path)
    model = onnx.load(str(graph.path))
    (last,) = (n for n in model.graph.node if "logits" in n.output)
    assert last.op_type == "Gemm"
    assert len(np.unique(outputs(graph, images(64, seed=1)))) > 0.98 * 64 * 10
    read = {name for n in model.graph.node for name in n.input}
    assert {t.name for t in model.graph.initializer} <= read


def one_bit(folder: Path, head: bool) -> Graph:
    """Layers of one bit with clipping between; head: a float dense layer ends them."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(2):
        conv = nn.Conv2d(16, 16, 3, padding=1)
        parts += [OneBit(conv, nn.BatchNorm2d(16), shortcut=not parts), nn.ReLU()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *([nn.Linear(16, 5)] if head else [])]
    return export_onnx(frozen(nn.Sequential(*parts).eval()), torch.zeros(1, 16, 9, 9), folder)


@pytest.mark.parametrize("named", [True, False])
def test_signs_read_floats_and_one_bit_layers_stay(named: bool, tmp_path: Path) -> None:
    graph = one_bit(tmp_path, head=True)
    if not named:
        model = onnx.load(str(graph.path))
        for node in model.graph.node:
            node.name = ""
        onnx.save(model, str(graph.path))
    samples = np.random.default_rng(0).normal(size=(16, 16, 9, 9)).astype(np.float32)
    made = quantize_onnx(graph, samples, X86, tmp_path / "int8")
    model = onnx.load(str(made.path))
    assert len(countable(model)) == 2
    makers = {o: n for n in model.graph.node for o in n.output}
    signs = [n for n in model.graph.node if n.op_type == "GreaterOrEqual"]
    assert [makers[n.input[0]].op_type for n in signs if n.input[0] in makers] == ["Relu"]
    (gemm,) = (n for n in model.graph.node if n.op_type == "Gemm")
    assert makers[gemm.input[0]].op_type == "DequantizeLinear"


def test_a_network_of_one_bit_alone_is_not_made_integers(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(16, 16, 9, 9)).astype(np.float32)
    with pytest.raises(ModelError, match="every layer that multiplies has one bit already"):
        quantize_onnx(one_bit(tmp_path, head=False), samples, X86, tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_a_norm_over_several_axes_stays_float_and_says_so(tmp_path: Path) -> None:
    """ONNX Runtime's quantizer fails at its bias of several axes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.LayerNorm([6, 8, 8]), nn.ReLU(), nn.Flatten(),
        nn.Linear(384, 5),
    ).eval()  # fmt: skip
    net[1].weight.data.uniform_(0.5, 2), net[1].bias.data.normal_()
    samples = np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32)
    graph = export_onnx(net, torch.from_numpy(samples[:1]), tmp_path / "float")
    made = quantize_onnx(graph, samples, Grid(), tmp_path / "int8")
    assert any("LayerNormalization over several axes" in w for w in made.facts["warnings"])
    assert sqnr_db(outputs(graph, samples), outputs(made, samples)) > 20


class Pooled(nn.Module):
    """A mean that counts its pads, over values of both signs: integers whose zero is not 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(nn.functional.leaky_relu(self.a(x), 0.5), 5, 3, 2)
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(self.b(x)), 1).flatten(1))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_pads_that_a_mean_counts_are_the_zero_point(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    source = export_onnx(Pooled(), torch.zeros(1, 3, 12, 12), tmp_path / "fp32")
    made = quantize_onnx(source, images(32), Grid(reduce_range=True), tmp_path / "int8")
    unseen = images(16, seed=1)
    target = load("openvino" if engine == "openvino" else "cpu")
    out = tmp_path / engine
    files = compile_module(engine).compile(made, target, out).files
    session = run_module(engine).Session({f: (out / f).read_bytes() for f in files})
    name = session.inputs[0].name
    got = np.concatenate([session.run({name: x[None]})["logits"] for x in unseen])
    assert sqnr_db(outputs(source, unseen), got) > 25
