"""A network whose answers are the rounding of float32 is told from one that a step broke."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecv.bundling.steadiness import LEAST_DB, explained, steadiness
from edgecv.errors import ParityError
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.runtime.preprocess import Preprocess

TAKES = Preprocess((12, 12), 3, (127.0,), (64.0,), 1.0)
ERROR = ParityError("net (c)", "SQNR 3 dB", "inspect it")


class Means(nn.Module):
    """Means of a normalised map, or of the map itself, times a thousand million."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.norm = nn.InstanceNorm2d(8) if normalised else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(1e9 * self.norm(self.conv(x)).mean((2, 3)))


def with_nan(out: Path) -> Graph:
    """Logarithms of what is negative for every image."""
    net = Means(normalised=False)
    net.norm = nn.Threshold(1e9, -1.0)
    module = nn.Sequential(net.conv, net.norm, Log(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return export_onnx(module.eval(), torch.zeros(1, 3, 12, 12), out)


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


def test_a_mean_behind_its_normalisation_is_rounding(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), np.uint8)
    sound, noise = (
        export_onnx(Means(normalised).eval(), torch.zeros(1, 3, 12, 12), tmp_path / str(normalised))
        for normalised in (False, True)
    )
    assert steadiness(sound, pixels, TAKES) > 100
    assert explained(ERROR, sound, pixels, TAKES) is ERROR
    assert steadiness(noise, pixels, TAKES) < LEAST_DB / 2
    assert explained(ERROR, with_nan(tmp_path / "nan"), pixels, TAKES) is ERROR
    said = explained(ERROR, noise, pixels, TAKES)
    assert said.where == ERROR.where
    assert said.what.startswith("SQNR 3 dB; its answers are rounding")
    assert "mean behind a normalisation" in said.hint
