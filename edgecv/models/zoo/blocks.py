"""The parts that the zoo's networks share, and that `restructure` puts in place of convolutions.

Channel shuffle (Zhang et al., "ShuffleNet", CVPR 2018) is the permutation (g, C/g) -> (C/g, g) of
channels between grouped convolutions; interleaved group convolutions (Zhang et al., ICCV 2017) are
complementary when every input reaches every output by exactly one path.

Pitfalls: x.mean((2, 3)) leaves a TRANSPOSE in TFLite files (`pooled` does not), and a shuffle
moves every byte of its tensor: grouped networks are slower than their MACs say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError

Act = Callable[[], nn.Module] | None
Norm = Callable[[int], nn.Module]


def conv_norm(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: Act = nn.ReLU,
    norm: Norm = nn.BatchNorm2d,
) -> nn.Sequential:
    """Convolution with `kernel // 2` padding and no bias, batch norm, and `act` if there is one."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(c_out), *([act()] if act else []))


def pooled(x: Tensor) -> Tensor:
    """Global average: (N, C, H, W) -> (N, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, at least `by` and not 10% below it."""
    near = max(by, int(channels + by / 2) // by * by)
    return near if near >= 0.9 * channels else near + by


def strides(published: Sequence[int], total: int) -> list[int]:
    """The published strides with the earliest set to 1 until their product is `total`.

    A network that divides its input by 32 leaves one pixel of a small image: by 8 or 4 it does not.
    Raises ModelError where no number of them makes that product.
    """
    kept = list(published)
    for i in range(len(kept)):
        if math.prod(kept) > total:
            kept[i] = 1
    if math.prod(kept) != total:
        largest = math.prod(published)
        raise ModelError("zoo", f"stride {total} is no power of 2 up to {largest}", "e.g. 8")
    return kept


def kaiming(module: nn.Module) -> None:
    """He et al.'s initialisation (ICCV 2015) of every convolution, for ReLU, over the fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ChannelShuffle(nn.Module):
    """`channels` seen as (groups, channels / groups) are transposed; the other way undoes it.

    A Gather along the channels, which is exported everywhere (reshape and transpose are refused by
    the TFLite export); for LiteRT the convolutions around it do it (`backends/tflite/channels.py`).
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        order = torch.arange(channels).reshape(groups, channels // groups).T.flatten()
        self.register_buffer("order", order, persistent=False)
        self.order: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class SqueezeExcite(nn.Module):
    """x · hardsigmoid(W2 relu(W1 pool(x))): a gate per channel (Hu et al. 2018; MobileNetV3's)."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.relu = nn.ReLU()
        self.excite = nn.Conv2d(squeeze, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.excite(self.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return x * self.gate(y)


class InvertedResidual(nn.Module):
    """x + project(gate(depthwise(expand(x)))); no addition where the shape changes.

    (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride)). Sandler et al. 2018; with
    `squeeze` channels in a gate, Howard et al. 2019. No expansion where hidden is c_in.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        stride: int = 1,
        kernel: int = 3,
        act: Act = nn.ReLU6,
        norm: Norm = nn.BatchNorm2d,
        squeeze: int = 0,
    ) -> None:
        super().__init__()
        self.expand: nn.Module = nn.Identity()
        if hidden != c_in:
            self.expand = conv_norm(c_in, hidden, 1, act=act, norm=norm)
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, hidden, act, norm)
        self.gate: nn.Module = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        self.project = conv_norm(hidden, c_out, 1, act=None, norm=norm)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.residual else y
