"""MobileNetV3, large and small: inverted residuals with gates and hard swish.

    hardswish(x) = x · relu6(x + 3) / 6,   y = x + project(gate(depthwise(expand(x))))

Howard et al. 2019, "Searching for MobileNetV3"; the tables below are the paper's. `stride` is what
the network divides its input by. Pitfall: the gates are what accelerators run badly (a global
average in the middle of every block), and hard swish is not fused by every engine.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from edgecv.models.zoo.blocks import (
    InvertedResidual,
    conv_norm,
    divisible,
    kaiming,
    pooled,
    strides,
)

NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)

# (kernel, expanded, channels out, gate, hard swish, stride)
LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
Table = tuple[tuple[int, int, int, bool, bool, int], ...]


class MobileNetV3(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(
        self, table: Table, last: int, width: float, classes: int, channels: int, stride: int
    ) -> None:
        super().__init__()
        first, *steps = strides([2, *(row[-1] for row in table)], stride)
        c_in = divisible(16 * width)
        self.stem = conv_norm(channels, c_in, 3, first, act=nn.Hardswish, norm=NORM)
        blocks: list[nn.Module] = []
        for (kernel, expanded, c, gate, swish, _), step in zip(table, steps, strict=True):
            hidden, c_out = divisible(expanded * width), divisible(c * width)
            squeeze = divisible(hidden // 4) if gate else 0
            act = nn.Hardswish if swish else nn.ReLU
            blocks.append(InvertedResidual(c_in, hidden, c_out, step, kernel, act, NORM, squeeze))
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.last = conv_norm(c_in, 6 * c_in, 1, act=nn.Hardswish, norm=NORM)
        wide = divisible(last * width)
        self.wide = nn.Sequential(nn.Linear(6 * c_in, wide), nn.Hardswish(), nn.Dropout(0.2))
        self.head = nn.Linear(wide, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(pooled(self.last(self.blocks(self.stem(x))))))


def mobilenet_v3_large(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Fifteen blocks. 5.48M parameters and 217M MACs at 224x224 and width 1.0."""
    return MobileNetV3(LARGE, 1280, width, classes, channels, stride)


def mobilenet_v3_small(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Eleven blocks. 2.54M parameters and 57M MACs at 224x224 and width 1.0."""
    return MobileNetV3(SMALL, 1024, width, classes, channels, stride)
