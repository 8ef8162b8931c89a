"""Open exports of torch, pinned: the arithmetic of sizes is gone, and they answer as torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export.onnx import load_onnx
from tests.methods.export.test_onnx_entry import answer

SIZES = {
    "Shape", "Range", "ConstantOfShape", "Expand", "NonZero", "Cast", "Unsqueeze", "Squeeze", "If",
    "Identity", "Mod", "Floor", "Where", "Equal", "Constant", "Dropout", "BatchNormalization",
}  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.place = nn.Parameter(torch.randn(1, 8, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(F.dropout(self.norm(self.conv(x)), 0.1, self.training))


class Views(Net):
    def behind(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        patches = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(b, -1, c * 4).softmax(-1).mean(1)


class Grid(Net):
    def behind(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        y, z = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((y, z), 0).float().unsqueeze(0).expand(b, -1, -1, -1)
        return torch.cat([x, grid], 1).mean((2, 3))


class Masked(Net):
    def behind(self, x: Tensor) -> Tensor:
        mask = torch.zeros(x.shape[2:])
        mask[::2] = 1
        kept = torch.nonzero(mask.flatten()).flatten()
        return x.flatten(2)[:, :, kept].mean(2)


class Sizes(Net):
    def behind(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.pad(x, (0, (8 - w % 8) % 8, 0, (8 - h % 8) % 8))
        small = F.avg_pool2d(x, 2)
        x = x + F.interpolate(small, size=x.shape[2:], mode="bilinear")
        return (x + F.interpolate(self.place, size=x.shape[2:], mode="bicubic")).mean((2, 3))


@pytest.mark.parametrize("make", [Views, Grid, Masked, Sizes])
def test_the_arithmetic_of_sizes_is_gone(make: type[Net], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = make().eval()
    path, open_sides = tmp_path / "net.onnx", {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.randn(1, 3, 10, 12),), str(path), input_names=["x"],
            dynamic_axes={"x": open_sides}, dynamo=False, opset_version=17,
        )  # fmt: skip
    size = (10, 12) if make is Masked else (12, 20)  # its tracer writes the mask's size down
    graph = load_onnx(path, tmp_path / "out", Pins(size=size))
    assert not SIZES & set(graph.facts["ops"]), graph.facts["ops"]
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(answer(graph.path, x.numpy()), expected, rtol=1e-4, atol=1e-5)
