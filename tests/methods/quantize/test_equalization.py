"""Equalization: the float function stays, the channels even out, what cannot be scaled is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecv.backends.onnxruntime.run import Session
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize._tflite_measured import measure_tflite, play
from edgecv.methods.quantize.equalization import scales
from edgecv.methods.quantize.onnx_equalize import equalized
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.target import Grid
from tests.backends.tflite_graphs import GRID, float_graph, images


class Uneven(nn.Module):
    """A residual network whose channels differ by a factor of 30; one is dead."""

    def __init__(self, cut: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.act = nn.Conv2d(3, 16, 3, padding=1), cut()
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 8)
        with torch.no_grad():
            for layer in (self.stem, self.b):
                factors = torch.logspace(-1, 0.5, 16)
                layer.weight *= factors[:, None, None, None]
                layer.bias *= factors
            self.stem.weight[5] = self.stem.bias[5] = 0  # a dead channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        x = self.b(torch.relu(self.a(x))) + x
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(x), 1).flatten(1))


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return export_onnx(Uneven(), torch.zeros(1, 3, 16, 16), tmp_path_factory.mktemp("u"))


def run(content: bytes, batch: np.ndarray) -> np.ndarray:
    session = Session({"m": content}, fused=False)
    return np.concatenate([session.run({"input": x[None]})["logits"] for x in batch])


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()))


def test_scales_even_channels_out_and_leave_dead_ones() -> None:
    tops = [np.array([8.0, 2.0, 0.0, 0.5])]
    alpha = scales(tops)
    assert alpha[2] == 1
    np.testing.assert_allclose((alpha * tops[0])[[0, 1, 3]], 2, rtol=1e-9)
    np.testing.assert_array_equal(scales([np.zeros(3)]), np.ones(3))


def test_the_function_stays_and_the_channels_are_even(uneven: Graph) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(str(uneven.path)))
    made = equalized(model, pixels(16))
    unseen = pixels(8, seed=1)
    want = run(uneven.path.read_bytes(), unseen)
    np.testing.assert_allclose(run(made.SerializeToString(), unseen), want, atol=2e-5)
    before, after = (
        next(onnx.numpy_helper.to_array(t) for t in m.graph.initializer if t.name == "stem.weight")
        for m in (model, made)
    )
    live = [i for i in range(16) if i != 5]
    spread = [np.ptp(np.log(np.abs(w[live]).max((1, 2, 3)))) for w in (before, after)]
    assert spread[1] < 0.5 * spread[0]
    np.testing.assert_array_equal(after[5], before[5])


def test_relu6_is_left_alone(tmp_path: Path) -> None:
    graph = export_onnx(Uneven(nn.ReLU6), torch.zeros(1, 3, 16, 16), tmp_path)
    model = onnx.shape_inference.infer_shapes(onnx.load(str(graph.path)))
    held, made = (
        {t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer}
        for m in (model, equalized(model, pixels(4)))
    )
    # the sum ties b's output to the stem's, which ReLU6 cuts
    assert np.array_equal(made["stem.weight"], held["stem.weight"])
    assert not np.array_equal(made["a.weight"], held["a.weight"])


def test_int8_loses_less_of_uneven_channels(uneven: Graph, tmp_path: Path) -> None:
    unseen = pixels(32, seed=1)
    want = run(uneven.path.read_bytes(), unseen)

    def kept(even: bool) -> float:
        options = Options(equalization=even)
        graph = quantize_onnx(uneven, pixels(64), Grid(), tmp_path / str(even), options)
        return sqnr_db(want, run(graph.path.read_bytes(), unseen))

    assert kept(True) > kept(False) + 1


def test_tflite_the_same(tmp_path: Path) -> None:
    graph, batch = float_graph(), images()[:16]
    seen = measure_tflite(graph, batch, equalization=True)
    files = graph.path.read_bytes(), seen.content
    models = [flatbuffer.parse(f, "test") for f in files]
    result = int(flatbuffer.graph_of(models[0]).outputs[0])
    before, after = (np.stack([value(result) for value in play(f, batch)]) for f in files)
    np.testing.assert_allclose(after, before, atol=2e-5)
    stems = [
        flatbuffer.constant(m, flatbuffer.graph_of(m).tensors[_first(m).inputs[1]]) for m in models
    ]
    assert not np.array_equal(*stems)
    made = quantize_tflite(
        graph, batch, GRID, "float32", tmp_path / "q", Options(equalization=True)
    )
    assert made.facts["executed"] == {"int8": 5, "fp32": 1}


def _first(model):
    return flatbuffer.graph_of(model).operators[0]
