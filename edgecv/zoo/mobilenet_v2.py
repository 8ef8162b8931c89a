"""MobileNetV2's inverted residuals, arranged for small images (32x32 or 28x28).

    y = x + project(depthwise(expand(x)))
    expand = conv1x1-BN-ReLU6, depthwise = conv3x3-BN-ReLU6, project = conv1x1-BN

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". The published
network divides its input by 32, which leaves one pixel of a small image: this one divides by 4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        self.expand = conv_bn_relu6(c_in, hidden, 1)
        self.depthwise = conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2Small(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_bn_relu6(channels, width, 3)
        # (channels in, channels out, stride) in multiples of the width
        plan = [(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)]
        self.blocks = nn.Sequential(
            *(InvertedResidual(a * width, b * width, stride, expand=4) for a, b, stride in plan)
        )
        self.last = conv_bn_relu6(4 * width, 16 * width, 1)
        self.head = nn.Linear(16 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def conv_bn_relu6(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution with `kernel // 2` padding, batch norm, ReLU6."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6())


def mobilenet_v2_small(width: int = 16, classes: int = 10, channels: int = 3) -> nn.Module:
    """Five inverted residuals. 87k parameters and 12.2M MACs at 32x32 with the defaults."""
    return MobileNetV2Small(width, classes, channels)
