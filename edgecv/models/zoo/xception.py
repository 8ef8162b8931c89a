"""Xception: Inception's towers taken to the end, one channel each.

    sep(x) = BN(conv1x1(depthwise3x3(x))),   y = P(x) + pool(sep(relu(sep(relu(x)))))

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017. There is no
activation between a depthwise convolution and its 1x1: with one it was worse. The stem pads
nothing, as published, so sizes are 299 -> 149 -> 147 -> 74 -> 37 -> 19 -> 10.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from edgecv.models.zoo.blocks import divisible, kaiming, pooled, strides

NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def separable(c_in: int, c_out: int) -> nn.Sequential:
    """depthwise3x3 - conv1x1 - BN."""
    depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(c_in, c_out, 1, bias=False), NORM(c_out))


class Block(nn.Module):
    """A residual block of separable convolutions, `widths` channels out of each."""

    def __init__(self, c_in: int, widths: list[int], stride: int, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c = c_in
        for index, c_out in enumerate(widths):
            layers += [nn.ReLU()] if index or relu_first else []
            layers.append(separable(c, c_out))
            c = c_out
        layers += [nn.MaxPool2d(3, 2, 1)] if stride == 2 else []
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c != c_in:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False), NORM(c))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Xception(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            divisible(c * width) for c in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        first, *steps = strides([2] * 5, stride)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, c32, 3, first, bias=False), NORM(c32), nn.ReLU(),
            nn.Conv2d(c32, c64, 3, bias=False), NORM(c64), nn.ReLU(),
        )  # fmt: skip
        self.blocks = nn.Sequential(
            Block(c64, [c128] * 2, steps[0], relu_first=False),
            Block(c128, [c256] * 2, steps[1]),
            Block(c256, [c728] * 2, steps[2]),
            *(Block(c728, [c728] * 3, 1) for _ in range(8)),
            Block(c728, [c728, c1024], steps[3]),
        )
        self.last = nn.Sequential(
            separable(c1024, c1536), nn.ReLU(), separable(c1536, c2048), nn.ReLU()
        )
        self.head = nn.Linear(c2048, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.last(self.blocks(self.stem(x)))))


def xception(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Twelve residual blocks. 22.9M parameters and 8.4G MACs at 299x299."""
    return Xception(width, classes, channels, stride)
