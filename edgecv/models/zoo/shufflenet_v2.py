"""ShuffleNetV2: half of the channels pass by, the other half is convolved, and all are shuffled.

    y = shuffle([x_1, f(x_2)], 2),   f = conv1x1 - depthwise3x3 - conv1x1

Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", made
for the clock: equal widths, no grouped 1x1, no addition. `stride` is what the network divides its
input by.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecv.models.zoo.blocks import ChannelShuffle, conv_norm, kaiming, pooled, strides

# width -> channels of the three stages and of the last convolution: the published table
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPEATS = (4, 8, 4)


class Unit(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, c_in: int, c_out: int, stride: int, first: bool) -> None:
        super().__init__()
        self.cut = half = c_out // 2
        self.left: nn.Module | None = None
        if first:  # nothing passes by: both branches see all channels
            self.left = nn.Sequential(
                conv_norm(c_in, c_in, 3, stride, c_in, act=None), conv_norm(c_in, half, 1)
            )
        self.right = nn.Sequential(
            conv_norm(c_in if first else half, half, 1),
            conv_norm(half, half, 3, stride, half, act=None),
            conv_norm(half, half, 1),
        )
        self.shuffle = ChannelShuffle(c_out, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.left is not None:
            left, right = self.left(x), x
        else:
            left, right = x[:, : self.cut], x[:, self.cut :]
        return self.shuffle(torch.cat([left, self.right(right)], 1))


class ShuffleNetV2(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, pool, *steps = strides([2, 2, 2, 2, 2], stride)
        self.stem = conv_norm(channels, 24, 3, first)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if pool == 2 else nn.Identity()
        *stages, last = WIDTHS.get(width) or _scaled(width)
        units: list[nn.Module] = []
        c_in = 24
        for c_out, repeats, step in zip(stages, REPEATS, steps, strict=True):
            for index in range(repeats):
                units.append(Unit(c_in, c_out, step if index == 0 else 1, first=index == 0))
                c_in = c_out
        self.units = nn.Sequential(*units)
        self.last = conv_norm(c_in, last, 1)
        self.head = nn.Linear(last, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.last(self.units(self.pool(self.stem(x))))))


def _scaled(width: float) -> tuple[int, ...]:
    """Channels of a width that was not published: of 1.0, in proportion, and even."""
    *stages, last = WIDTHS[1.0]
    return (*(max(2, round(c * width / 2) * 2) for c in stages), last)


def shufflenet_v2(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Sixteen units. 2.28M parameters and 145M MACs at 224x224 and width 1.0."""
    return ShuffleNetV2(width, classes, channels, stride)
