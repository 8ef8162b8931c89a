"""Channels in front of depthwise layers, and x in x sigmoid(x), of .tflite files in 8 bits."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize import _tflite_even
from edgecv.methods.quantize._tflite_gates import through
from edgecv.methods.quantize._tflite_measured import Measured
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.ranges import histogram, mse
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from tests.backends.tflite_graphs import GRID, images
from tests.methods.quantize.test_tflite_int8 import logits, sqnr_db

_ROOM = tempfile.TemporaryDirectory(prefix="edgecv-test-even-")


class Stem(nn.Module):
    """A convolution whose channels are of sizes from 1 to 1000, a strided depthwise layer."""

    def __init__(self, act: type[nn.Module], sizes: float) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 16, 3, padding=1), act()
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.last = nn.Conv2d(16, 8, 1)
        each = torch.logspace(0, sizes, 16)
        with torch.no_grad():
            self.stem.weight.mul_(each.view(-1, 1, 1, 1))
            self.depthwise.weight.div_(each.view(-1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.depthwise(self.act(self.stem(x))))


class Dense(Stem):
    """The same, read by a dense 1x1 layer."""

    def __init__(self, act: type[nn.Module], sizes: float) -> None:
        super().__init__(act, sizes)
        self.depthwise = nn.Conv2d(16, 16, 1)
        with torch.no_grad():
            self.depthwise.weight.div_(torch.logspace(0, sizes, 16).view(1, -1, 1, 1))


@cache
def exported(act: type[nn.Module], sizes: float, net: type[Stem] = Stem) -> Graph:
    torch.manual_seed(0)
    folder = Path(_ROOM.name) / f"{net.__name__}{act.__name__}{sizes}"
    return export_tflite(net(act, sizes).eval(), torch.zeros(1, 3, 24, 24), folder)


@pytest.mark.parametrize(("act", "more"), [(nn.SiLU, ["MUL"]), (nn.ReLU, [])])
def test_uneven_channels_are_evened_and_the_network_computes_the_same(
    act, more: list[str], tmp_path: Path
) -> None:
    graph = exported(act, 3.0)
    content = graph.path.read_bytes()
    seen = Measured(content, images())
    before, after = (flatbuffer.op_counts(flatbuffer.parse(c, "")) for c in (content, seen.content))
    assert after == before | {kind: before[kind] + 1 for kind in more}
    path = tmp_path / "evened.tflite"
    path.write_bytes(seen.content)
    a, b = (logits(replace(graph, path=p), images()[:4]) for p in (graph.path, path))
    np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("act", [nn.SiLU, nn.ReLU])
def test_evened_channels_keep_what_one_scale_loses(act, tmp_path: Path, monkeypatch) -> None:
    graph = exported(act, 3.0)
    found = []
    for poor in (_tflite_even.POOR, np.inf):
        monkeypatch.setattr(_tflite_even, "POOR", poor)
        made = quantize_tflite(graph, images(), GRID, "int8", tmp_path / str(poor))
        found.append(sqnr(graph, made))
    assert found[0] > found[1] + 10


def test_channels_of_a_silu_are_evened_in_front_of_a_dense_layer(
    tmp_path: Path, monkeypatch
) -> None:
    graph = exported(nn.SiLU, 3.0, Dense)
    found, contents = [], []
    for poor in (_tflite_even.POOR, np.inf):
        monkeypatch.setattr(_tflite_even, "POOR", poor)
        contents.append(Measured(graph.path.read_bytes(), images()).content)
        found.append(sqnr(graph, quantize_tflite(graph, images(), GRID, "int8", tmp_path / "made")))
    assert contents[0] != contents[1]
    assert found[0] > found[1] + 6
    path = tmp_path / "evened.tflite"
    path.write_bytes(contents[0])
    a, b = (logits(replace(graph, path=p), images()[:4]) for p in (graph.path, path))
    np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())


def test_dense_layers_behind_relu_stay_as_they_are() -> None:
    content = exported(nn.ReLU, 3.0, Dense).path.read_bytes()
    assert Measured(content, images()).content == content


def test_even_channels_stay_as_they_are() -> None:
    graph = exported(nn.ReLU, 0.0)
    content = graph.path.read_bytes()
    assert Measured(content, images()).content == content


@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_x_of_a_silu_has_no_levels_where_it_gives_nothing(method: str, tmp_path: Path) -> None:
    graph = exported(nn.SiLU, 3.0)
    model = flatbuffer.read(graph.path)
    stem = flatbuffer.graph_of(model).operators[0]
    name = flatbuffer.graph_of(model).tensors[stem.outputs[0]].name.decode()
    seen = Measured(graph.path.read_bytes(), images(), trained=True)
    assert seen.spans[name][0] < -20
    assert -8 <= seen.ranges(method)[name][0] < -1
    made = quantize_tflite(
        graph, images(), GRID, "int8", tmp_path / "made", Options(calibration=method)
    )
    assert sqnr(graph, made) > 15


def test_the_range_of_x_is_that_which_holds_the_result_best() -> None:
    x = np.concatenate([np.random.default_rng(0).normal(-10, 12, 20000), [60.0]]).astype("f4")
    span = float(x.min()), float(x.max())
    counts = histogram(x, *span)
    losses = [loss(x, *one) for one in (through(counts, span), mse(counts, span, False), span)]
    assert losses[0] < 0.5 * min(losses[1:])


def loss(x: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    zero = round(-low / step)
    q = (np.clip(np.rint(x / step), -zero, 255 - zero) * step).astype(np.float64)
    y = x / (1 + np.exp(-x.astype(np.float64)))
    return float(np.square(q / (1 + np.exp(-q)) - y).mean())


def sqnr(graph: Graph, made: Graph) -> float:
    return sqnr_db(logits(graph, images()), logits(made, images()))
