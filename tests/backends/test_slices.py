"""Every k-th channel in integers, picked by weights or gathered; averages and softmaxes likewise:
the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime import slices as picking  # noqa: E402
from edgecv.backends.onnxruntime.averages import averaged  # noqa: E402
from edgecv.backends.onnxruntime.profile import ONES  # noqa: E402
from edgecv.backends.onnxruntime.slices import unsliced  # noqa: E402
from edgecv.backends.onnxruntime.softmax import flattened  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.target import load  # noqa: E402
from tests.backends.test_lookup import answers, compiled, images  # noqa: E402


class Shuffled(nn.Module):
    """ShuffleNetV2's unit as files slice it. kernel: of the convolution behind the slice."""

    def __init__(self, step: int = 2, kernel: int = 1, shared: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step, self.shared = step, shared
        self.stem, half = nn.Conv2d(3, 12, 3, padding=1), -(-(12 - 1) // step)
        self.right = nn.Sequential(
            nn.Conv2d(half, 8, kernel, padding=kernel // 2), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.last = nn.Conv2d(8 + -(-12 // step) + half * shared, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        left, right = x[:, :: self.step], x[:, 1 :: self.step]
        parts = [left, self.right(right), *([right] if self.shared else [])]
        return self.last(torch.cat(parts, 1))


@pytest.mark.parametrize(
    ("options", "slices", "picked"),
    [
        ({}, 2, 1),
        ({"step": 3}, 2, 1),
        ({"kernel": 3}, 2, 2),
        ({"shared": True}, 2, 2),
        ({"step": 1}, 0, 0),
    ],
)
def test_they_are_the_same_numbers(
    options: dict[str, int], slices: int, picked: int, tmp_path: Path
) -> None:
    """picked: slices that become a convolution of their own"""
    net = Shuffled(**options).eval()
    graph = export_onnx(net, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    x = images()
    quantized = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "q")
    content = quantized.path.read_bytes()
    model = onnx.load_model_from_string(content)
    assert unsliced(model) == slices
    onnx.checker.check_model(model, full_check=True)
    kinds = [n.op_type for n in model.graph.node]
    assert sum(n.op_type == "Conv" and n.name.endswith(ONES) for n in model.graph.node) == picked
    assert not slices or not {"Slice", "Gather"} & {*kinds}
    made = model.SerializeToString(deterministic=True)
    assert made == compiled(quantized, tmp_path / "c")
    assert np.array_equal(answers(made, x, optimised=True), answers(content, x, optimised=True))


def test_many_channels_are_gathered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(picking, "MOST", 4)
    graph = export_onnx(Shuffled().eval(), torch.zeros(1, 3, 24, 24), tmp_path / "float")
    x = images()
    quantized = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "q")
    content = quantized.path.read_bytes()
    model = onnx.load_model_from_string(content)
    assert unsliced(model) == 2
    assert [n.op_type for n in model.graph.node].count("Gather") == 1
    made = model.SerializeToString(deterministic=True)
    assert np.array_equal(answers(made, x, optimised=True), answers(content, x, optimised=True))


class Averaged(nn.Module):
    """pads: of the average, which counts them or not."""

    def __init__(self, kernel: int = 3, pads: int = 1, counted: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.last = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 5, 1)
        self.pool = nn.AvgPool2d(kernel, 2, pads, count_include_pad=counted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.last(self.pool(torch.relu(self.stem(x)))), 1)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"pads": 0}, 1),
        ({"counted": False}, 0),
        ({"kernel": 5, "pads": 2}, 1),
        ({"kernel": 24, "pads": 0}, 0),
    ],
)
def test_averages_are_the_same_numbers(options: dict[str, int], count: int, tmp_path: Path) -> None:
    net = Averaged(**options).eval()  # type: ignore[arg-type]
    graph = export_onnx(net, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    x = images()
    quantized = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "q")
    content = quantized.path.read_bytes()
    model = onnx.load_model_from_string(content)
    assert averaged(model) == count
    assert not count or not {"AveragePool", "Pad"} & {n.op_type for n in model.graph.node}
    assert flattened(model) == (options.get("kernel") != 24)  # of one pixel it is flat already
    onnx.checker.check_model(model, full_check=True)
    made = model.SerializeToString(deterministic=True)
    assert made == compiled(quantized, tmp_path / "c")
    got, want = (answers(m, x, optimised=True) for m in (made, content))
    assert np.std(want) > 0
    assert np.allclose(got, want, rtol=0, atol=1e-6)
