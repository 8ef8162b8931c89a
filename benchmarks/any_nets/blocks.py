"""Blocks of convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Act = Callable[[], nn.Module]


def conv(c_in: int, c_out: int, k: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1,
         act: Act | None = nn.ReLU) -> nn.Sequential:  # fmt: skip
    """Convolution, batch normalisation, activation."""
    pad = dilation * (k // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, k, stride, pad, dilation, groups, bias=False), nn.BatchNorm2d(c_out)
    ]  # fmt: skip
    return nn.Sequential(*layers, *([act()] if act else []))


def trunk(width: int) -> nn.Sequential:
    """(N, 3, H, W) -> (N, width, H/4, W/4)."""
    return nn.Sequential(conv(3, 8, 3, 2), conv(8, width, 3, 2), conv(width, width))


class InvertedResidual(nn.Module):
    """Howard 2019: expand, depthwise, squeeze and excite, project; hard swish."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        wide = 2 * c_in
        self.open = conv(c_in, wide, 1, act=nn.Hardswish)
        self.deep = conv(wide, wide, 3, stride, groups=wide, act=nn.Hardswish)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 8, 1), nn.ReLU(),
                                  nn.Conv2d(8, wide, 1), nn.Hardsigmoid())  # fmt: skip
        self.close, self.same = conv(wide, c_out, 1, act=None), c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H/s, W/s)."""
        y = self.deep(self.open(x))
        y = self.close(y * self.gate(y))
        return x + y if self.same else y


class GhostModule(nn.Module):
    """Han 2020: half of the channels from cheap depthwise convolutions of the other half."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first, self.cheap = conv(c_in, c_out // 2, 1), conv(c_out // 2, c_out // 2, 3,
                                                                 groups=c_out // 2)  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)


class ShuffleUnit(nn.Module):
    """Ma 2018: half of the channels pass by, then the channels are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(conv(half, half, 1), conv(half, half, 3, groups=half, act=None),
                                  conv(half, half, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        by, through = x.chunk(2, 1)
        y = torch.cat([by, self.body(through)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Res2Net(nn.Module):
    """Gao 2019: four splits, each added to the next."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([conv(width // 4, width // 4) for _ in range(3)])
        self.close = conv(width, width, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        first, *others = torch.chunk(x, 4, 1)
        made = [first]
        for part, split in zip(self.parts, others, strict=True):
            made.append(part(split if len(made) == 1 else split + made[-1]))
        return F.relu(x + self.close(torch.cat(made, 1)))


class RepVGG(nn.Module):
    """Ding 2021, before its branches are one: 3x3, 1x1 and the value itself, each normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three, self.one = conv(width, width, 3, act=None), conv(width, width, 1, act=None)
        self.own = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.relu(self.three(x) + self.one(x) + self.own(x))
