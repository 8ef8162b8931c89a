"""Residual networks for small images (32x32 or 28x28).

    y = relu(F(x) + P(x)),   F = conv3x3-BN-ReLU-conv3x3-BN,   P = identity or conv1x1-BN

He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2: a 3x3 stem, three
stages of n basic blocks with w, 2w and 4w channels, stride 2 into the second and the third, a
global average and a linear head: 6n+2 layers. The paper's zero-padded shortcuts (option A) are
1x1 projections here (option B): padding channels cannot be pruned or fused. resnet8 is the
n = 1 network of MLPerf Tiny (Banbury et al. 2021).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, blocks: int, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stage1 = _stage(blocks, width, width, stride=1)
        self.stage2 = _stage(blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        # not x.mean((2, 3)): TFLite converters leave a TRANSPOSE in front of that
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _stage(blocks: int, c_in: int, c_out: int, stride: int) -> nn.Sequential:
    first = BasicBlock(c_in, c_out, stride)
    return nn.Sequential(first, *(BasicBlock(c_out, c_out, 1) for _ in range(blocks - 1)))


def resnet8(width: int = 16, classes: int = 10, channels: int = 3) -> nn.Module:
    """One block a stage. 78k parameters and 12.5M MACs at 32x32 with the defaults."""
    return ResNet(1, width, classes, channels)


def resnet20(width: int = 16, classes: int = 10, channels: int = 3) -> nn.Module:
    """Three blocks a stage. 272k parameters and 41M MACs at 32x32 with the defaults."""
    return ResNet(3, width, classes, channels)
