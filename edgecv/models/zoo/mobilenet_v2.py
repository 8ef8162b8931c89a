"""MobileNetV2: inverted residuals, for ImageNet and arranged for small images.

    y = x + project(depthwise(expand(x)))
    expand = conv1x1-BN-ReLU6, depthwise = conv3x3-BN-ReLU6, project = conv1x1-BN

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". The published
network divides its input by 32, which leaves one pixel of a small image: `stride` says by how much
less, and mobilenet_v2_small is a network of its own that divides by 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgecv.models.zoo.blocks import (
    InvertedResidual,
    conv_norm,
    divisible,
    kaiming,
    pooled,
    strides,
)

# (expansion, channels, repeats, stride of the first): the published table
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, *steps = strides([2, *(s for *_, s in STAGES)], stride)
        c_in = divisible(32 * width)
        self.stem = conv_norm(channels, c_in, 3, first, act=nn.ReLU6)
        blocks: list[nn.Module] = []
        for (expansion, c, repeats, _), step in zip(STAGES, steps, strict=True):
            for index in range(repeats):
                c_out = divisible(c * width)
                step_here = step if index == 0 else 1
                blocks.append(InvertedResidual(c_in, c_in * expansion, c_out, step_here))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        last = divisible(1280 * max(1.0, width))
        self.last = conv_norm(c_in, last, 1, act=nn.ReLU6)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(last, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(pooled(self.last(self.blocks(self.stem(x))))))


class MobileNetV2Small(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, width, 3, act=nn.ReLU6)
        # (channels in, channels out, stride) in multiples of the width
        plan = [(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)]
        self.blocks = nn.Sequential(
            *(InvertedResidual(a * width, 4 * a * width, b * width, s) for a, b, s in plan)
        )
        self.last = conv_norm(4 * width, 16 * width, 1, act=nn.ReLU6)
        self.head = nn.Linear(16 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.last(self.blocks(self.stem(x)))))


def mobilenet_v2(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Seventeen inverted residuals. 3.50M parameters and 301M MACs at 224x224 and width 1.0."""
    return MobileNetV2(width, classes, channels, stride)


def mobilenet_v2_small(width: int = 16, classes: int = 10, channels: int = 3) -> nn.Module:
    """Five inverted residuals. 87k parameters and 12.2M MACs at 32x32 with the defaults."""
    return MobileNetV2Small(width, classes, channels)
