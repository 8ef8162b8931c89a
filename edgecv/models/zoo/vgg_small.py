"""A VGG-like network for small images (32x32 or 28x28): wide 3x3 convolutions, one after the other.

    x ─ [conv3x3-BN-ReLU] x 2 ─ max pool ─ ... ─ average ─ dense-ReLU ─ dense

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, cut to three stages of w, 2w and 4w channels, with batch norm, and an average in place of the
first dense layer's many weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class VggSmall(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stage1 = _stage(channels, width)
        self.stage2 = _stage(width, 2 * width)
        self.stage3 = _stage(2 * width, 4 * width)
        self.dense = nn.Linear(4 * width, 4 * width)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stage1(x), 2)
        x = F.max_pool2d(self.stage2(x), 2)
        x = F.adaptive_avg_pool2d(self.stage3(x), 1).flatten(1)
        return self.head(self.relu(self.dense(x)))


def _stage(c_in: int, c_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (c_in, c_out):
        layers += [nn.Conv2d(source, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def vgg_small(width: int = 32, classes: int = 10, channels: int = 3) -> nn.Module:
    """Six convolutions. 305k parameters and 38.7M MACs at 32x32 with the defaults."""
    return VggSmall(width, classes, channels)
