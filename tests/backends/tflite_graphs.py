"""Networks and conversions that the TFLite tests share: each is converted once in a test run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecv.graph import Graph
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.target import Grid

GRID = Grid(activations="int8")
_ROOM = tempfile.TemporaryDirectory(prefix="edgecv-test-tflite-")


class Residual(nn.Module):
    """A stem, one residual block, one strided depthwise block, a dense layer over mean(2, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.b(self.a(x)) + x)
        x = torch.relu(self.wide(torch.relu(self.down(x))))
        return self.head(x.mean((2, 3)))


def net() -> Residual:
    torch.manual_seed(0)
    return Residual().eval()


@cache
def images(count: int = 32) -> np.ndarray:
    """float32 (count, 24, 24, 3), smooth, about -1..1."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(count, 6, 6, 3)).astype(np.float32)
    return np.repeat(np.repeat(small, 4, axis=1), 4, axis=2).clip(-2, 2) / 2


@cache
def float_graph() -> Graph:
    """The residual net as a float32 .tflite."""
    return export_tflite(net(), torch.zeros(1, 3, 24, 24), Path(_ROOM.name) / "float")


@cache
def int8_graph(io: str = "int8", grid: Grid = GRID) -> Graph:
    """The same in int8, calibrated on the first 16 images."""
    out = Path(_ROOM.name) / f"{io}-{grid.dense_per_channel}"
    return quantize_tflite(float_graph(), images()[:16], grid, io, out)


def torch_logits(batch: np.ndarray) -> np.ndarray:
    """The PyTorch net's answer to NHWC images."""
    with torch.no_grad():
        return net()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())).numpy()
