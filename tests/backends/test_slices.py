"""Every k-th channel in integers, picked by weights or gathered: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime.slices import unsliced  # noqa: E402
from edgecv.stages.export.onnx import export_onnx  # noqa: E402
from edgecv.stages.quantize.onnx_qdq import quantize_onnx  # noqa: E402
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
    ("options", "slices", "gathers"),
    [
        ({}, 2, 1),
        ({"step": 3}, 2, 1),
        ({"kernel": 3}, 2, 2),
        ({"shared": True}, 2, 2),
        ({"step": 1}, 0, 0),
    ],
)
def test_they_are_the_same_numbers(
    options: dict[str, int], slices: int, gathers: int, tmp_path: Path
) -> None:
    net = Shuffled(**options).eval()
    graph = export_onnx(net, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    x = images()
    quantized = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "q")
    content = quantized.path.read_bytes()
    model = onnx.load_model_from_string(content)
    assert unsliced(model) == slices
    onnx.checker.check_model(model, full_check=True)
    assert sum(n.op_type == "Gather" for n in model.graph.node) == gathers
    made = model.SerializeToString(deterministic=True)
    assert made == compiled(quantized, tmp_path / "c")
    assert np.array_equal(answers(made, x, optimised=True), answers(content, x, optimised=True))
