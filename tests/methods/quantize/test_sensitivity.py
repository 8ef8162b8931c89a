"""Noise of one rounded thing at a time, on real graphs that ONNX Runtime runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv import target  # noqa: E402
from edgecv.backends.onnxruntime.tensors import runner  # noqa: E402
from edgecv.methods.export.onnx import load_onnx  # noqa: E402
from edgecv.methods.quantize.hessian import curvatures  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.methods.quantize.sensitivity import sensitivities  # noqa: E402
from edgecv.runtime.fidelity import compare  # noqa: E402


class Net(nn.Module):
    """A residual sum, a ReLU6, a pool and a dense layer, whose weights have one huge outlier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.dense, self.relu = nn.Conv2d(8, 16, 1), nn.Linear(16, 5), nn.ReLU6()
        with torch.no_grad():
            self.c.weight[:, 0] *= 60.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.a(x))
        x = self.c(self.relu(x + self.b(x)))
        return self.dense(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Two(Net):
    """Scores beside a map: they are a large constant and little that differs between images, and
    only they read `dense`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.dense.bias += torch.arange(5) * 30.0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.relu(self.a(x))
        x = self.relu(x + self.b(x))
        scores = self.dense(self.c(x).mean((2, 3)))
        return x, scores + torch.arange(5) * 0.1  # a constant is no layer's weight


SAMPLES = np.random.default_rng(0).normal(0, 1, (24, 3, 16, 16)).astype("f4")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    return made(Net(), tmp_path_factory.mktemp("net"))


def made(net: nn.Module, folder: Path) -> tuple:
    torch.onnx.export(
        net.eval(), (torch.zeros(1, 3, 16, 16),), str(folder / "net.onnx"), dynamo=False,
        opset_version=18,
    )  # fmt: skip
    graph = load_onnx(folder / "net.onnx", folder / "float")
    quantized = quantize_onnx(graph, SAMPLES[:16], target.load("cpu").grid, folder / "int8")
    model = onnx.shape_inference.infer_shapes(onnx.load(str(graph.path)))
    return model, onnx.load(str(quantized.path))


def outputs(model: object) -> np.ndarray:
    run = runner(model)
    return np.stack([run(image)[0][0] for image in SAMPLES[16:]]).astype(np.float64)


def test_noises_add_up_to_the_whole_graphs(graphs: tuple) -> None:
    model, quantized = graphs
    problem = sensitivities(model, quantized, SAMPLES[16:])
    real, rounded = outputs(model), outputs(quantized)
    whole = ((rounded - real) ** 2).sum() / (real**2).sum()
    assert 0.5 < problem.noise / whole < 2.0


def test_a_tensor_is_touched_by_the_layers_that_make_and_read_it(graphs: tuple) -> None:
    problem = sensitivities(*graphs, SAMPLES[16:20])
    touching = {frozenset(v) for v in problem.touching.values()}
    for expected in ({"a"}, {"a", "b", "/Add"}, {"/Add", "c"}):
        assert frozenset(expected) in touching
    assert set().union(*touching) <= set(problem.weights)


def test_nothing_is_changed_and_twice_is_the_same(graphs: tuple) -> None:
    before = [g.SerializeToString(deterministic=True) for g in graphs]
    told: list[tuple[int, int]] = []
    first = sensitivities(*graphs, SAMPLES[16:20], lambda *a: told.append(a))
    assert sensitivities(*graphs, SAMPLES[16:20]) == first
    assert [g.SerializeToString(deterministic=True) for g in graphs] == before
    assert told[-1] == (len(told), len(told))


def test_a_layer_with_coarser_weights_stands_out(graphs: tuple) -> None:
    """Its noise is what the float network loses with these weights alone."""
    model, quantized = graphs
    coarse = onnx.ModelProto()
    coarse.CopyFrom(quantized)
    held = {t.name: t for t in coarse.graph.initializer}
    scale, q = (onnx.numpy_helper.to_array(held[f"b.weight_{of}"]) for of in ("scale", "quantized"))
    scale, q = (scale * 16).astype("f4"), np.rint(q / 16).astype("i1")
    for of, values in (("scale", scale), ("quantized", q)):
        name = f"b.weight_{of}"
        held[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    before, after = (sensitivities(model, g, SAMPLES[16:]).weights for g in (quantized, coarse))
    assert after["b"] > 30 * before["b"]
    assert after["a"] == before["a"]

    net, images = Net().eval(), torch.from_numpy(SAMPLES[16:])
    with torch.no_grad():
        real = net(images)
        net.b.weight.copy_(torch.from_numpy(q * scale.reshape(-1, 1, 1, 1)))
        noise = (net(images) - real).square().sum() / real.square().sum()
    assert after["b"] == pytest.approx(float(noise), rel=1e-2)


def test_gradients_find_what_running_finds(graphs: tuple) -> None:
    """To first order they are the same quadratic form, estimated from random signs."""
    run, curved = sensitivities(*graphs, SAMPLES[16:]), curvatures(*graphs, SAMPLES[16:])
    assert curved.touching == run.touching
    for found, wanted in ((curved.weights, run.weights), (curved.activations, run.activations)):
        assert found.keys() == wanted.keys()
        large = [k for k, v in wanted.items() if v > 0.02 * run.noise]
        assert large
        for name in large:
            assert 0.3 < found[name] / wanted[name] < 3.0, name
    assert curvatures(*graphs, SAMPLES[16:]) == curved


@pytest.mark.parametrize("measure", [sensitivities, curvatures])
def test_what_one_of_several_outputs_reads_counts_against_that_outputs_signal(
    measure: Callable, tmp_path: Path
) -> None:
    model, quantized = made(Two(), tmp_path)
    map_, scores = (o.name for o in model.graph.output)
    first = measure(model, quantized, SAMPLES[16:])
    assert first.weights["dense"] == 0.0
    ends = {map_: "values", scores: "classes"}
    name = "ends" if measure is sensitivities else "kinds"
    both = measure(model, quantized, SAMPLES[16:], **{name: ends})
    assert both.weights["dense"] > 1e-5
    run = [runner(g) for g in (model, quantized)]
    real, rounded = (np.stack([r(image)[1][0] for image in SAMPLES[16:]]) for r in run)
    whole = 10 ** (-compare(real, rounded, "classes").sqnr_db / 10)
    assert 0.3 < (both.noise - first.noise) / whole < 3.0
