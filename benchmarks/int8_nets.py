"""A ConvNeXt for small pictures, for `int8_networks.py`.

y = x + γ · back(gelu(wide(norm(depthwise7x7(x)))))

Liu et al., "A ConvNet for the 2020s" (CVPR 2022): LayerNorm over the channels of each pixel, dense
layers per pixel four times as wide, γ a scale for each channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Norm(nn.LayerNorm):
    """Over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """(N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.back(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes); the input's side is divided by 8."""

    def __init__(self, depths: list[int], width: int, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 2, 2), _Norm(width)]
        for stage, depth in enumerate(depths):
            if stage:
                layers += [_Norm(width), nn.Conv2d(width, 2 * width, 2, 2)]
                width *= 2
            layers += [_Block(width) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x).mean((2, 3))))


def convnext(width: int = 24, classes: int = 10, channels: int = 1) -> nn.Module:
    """Three stages of 1, 1 and 2 blocks; each has twice the channels of the one before it."""
    return ConvNeXt([1, 1, 2], width, classes, channels)
