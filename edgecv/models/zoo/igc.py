"""Interleaved group convolutions: grouped convolutions whose product is dense.

IGCV1 (Zhang et al., ICCV 2017)   W = P' · G1(M groups of L) · P · G3(L groups of M)
IGCV2 (Xie et al., CVPR 2018)     W = P' · G1(C/g groups of g) · P · G1(g groups of C/g) · D
IGCV3 (Sun et al., BMVC 2018)     W = P' · G1(2 groups, narrower) · D · P · G1(2 groups, wider)

G1 and G3 are grouped 1x1 and 3x3 convolutions, D is depthwise, P a channel shuffle. V1 and V2 are
complementary: one path from every input to every output. V3 is MobileNetV2's inverted residual with
its two 1x1 convolutions in two groups, twice as deep (IGCV3-D).

Pitfalls: at equal MACs they are slower than depthwise separable networks, for grouped convolutions
and shuffles are bound by memory. IGCV2 here is the block in MobileNetV1's frame, with the g that
costs least; the paper's own ImageNet network is not described closely enough to count it.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import ChannelShuffle, conv_norm, kaiming, pooled, strides
from edgecv.models.zoo.mobilenet_v1 import BLOCKS

PAIR = 2  # groups of IGCV3's 1x1 convolutions


def interleaved(
    c_in: int, c_out: int, groups: int, bias: bool = False, **spatial: Any
) -> nn.Sequential:
    """IGCV1: `groups` k×k convolutions, then c_out / groups 1x1 ones across them.

    spatial: kernel_size (3), stride, padding (1) and dilation of the k×k; bias: of the 1x1
    """
    across = c_out // groups
    spatial = {"kernel_size": 3, "padding": 1} | spatial
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, groups=groups, bias=False, **spatial),
        ChannelShuffle(c_out, groups),
        nn.Conv2d(c_out, c_out, 1, groups=across, bias=bias),
        ChannelShuffle(c_out, across),
    )


def sparse_pointwise(c_in: int, c_out: int, groups: int, bias: bool = False) -> nn.Sequential:
    """IGCV2's dense-equivalent 1x1: `groups` convolutions, then c_out / groups across them."""
    across = c_out // groups
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, groups=groups, bias=False),
        ChannelShuffle(c_out, groups),
        nn.Conv2d(c_out, c_out, 1, groups=across, bias=bias),
        ChannelShuffle(c_out, across),
    )


def cheapest_groups(c_in: int, c_out: int) -> int:
    """The g with the least c_in c_out / g + c_out g: the balance condition, near sqrt(c_in)."""
    common = math.gcd(c_in, c_out)
    every = [g for g in range(1, common + 1) if common % g == 0]
    return min(every, key=lambda g: c_in * c_out // g + c_out * g)


class IGCV1(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes). A plain chain of three stages."""

    def __init__(self, width: int, groups: int, depth: int, classes: int, channels: int) -> None:
        super().__init__()
        repeats, rest = divmod(depth - 2, 3)
        if rest or repeats < 1:
            what = f"depth must be 3 n + 2, got {depth}"
            raise ModelError("zoo igcv1", what, "e.g. 8, 20, 38")
        _divides("igcv1", groups, width)
        layers: list[nn.Module] = [conv_norm(channels, width, 3)]
        c_in = width
        for stage in range(3):
            for index in range(repeats):
                c_out, step = width * 2**stage, 2 if stage and not index else 1
                layers += [interleaved(c_in, c_out, groups, stride=step), nn.BatchNorm2d(c_out)]
                layers.append(nn.ReLU())
                c_in = c_out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(c_in, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.features(x)))


class IGCBasicBlock(nn.Module):
    """ResNet's basic block with interleaved group convolutions, a grouped 1x1 as its projection."""

    def __init__(self, c_in: int, c_out: int, groups: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            interleaved(c_in, c_out, groups, stride=stride), nn.BatchNorm2d(c_out), nn.ReLU(),
            interleaved(c_out, c_out, groups), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out:
            self.shortcut = conv_norm(c_in, c_out, 1, stride, groups, act=None)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class IGCV1ResNet(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes). ResNet-18's frame, M = 2."""

    def __init__(self, groups: int, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, pool, *steps = strides([2, 2, 1, 2, 2, 2], stride)
        self.stem = conv_norm(channels, groups, 7, first)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if pool == 2 else nn.Identity()
        blocks: list[nn.Module] = []
        c_in = groups
        for stage, step in enumerate(steps):
            c_out = 2 * groups * 2**stage
            blocks.append(IGCBasicBlock(c_in, c_out, c_out // 2, step))
            blocks.append(IGCBasicBlock(c_out, c_out, c_out // 2, 1))
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(c_in, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.blocks(self.pool(self.stem(x)))))


class IGCV2(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, *steps = strides([2, *(s for _, s in BLOCKS)], stride)
        c_in = max(8, int(32 * width) // 8 * 8)
        self.stem = conv_norm(channels, c_in, 3, first)
        layers: list[nn.Module] = []
        for (c, _), step in zip(BLOCKS, steps, strict=True):
            c_out = max(8, int(c * width) // 8 * 8)
            layers.append(conv_norm(c_in, c_in, 3, step, c_in, act=None))
            layers.append(sparse_pointwise(c_in, c_out, cheapest_groups(c_in, c_out)))
            layers += [nn.BatchNorm2d(c_out), nn.ReLU()]
            c_in = c_out
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(c_in, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.blocks(self.stem(x))))


# (expansion, channels, repeats, stride of the first): the published table of IGCV3-D
IGCV3_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 4, 2),
    (6, 32, 6, 2),
    (6, 64, 8, 2),
    (6, 96, 6, 1),
    (6, 160, 6, 2),
    (6, 320, 1, 1),
)


class IGCV3Block(nn.Module):
    """Grouped 1x1 - shuffle - depthwise 3x3 - grouped 1x1 - shuffle, and the input added."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, residual: bool) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.body = nn.Sequential(
            conv_norm(c_in, hidden, 1, groups=PAIR, act=None),
            ChannelShuffle(hidden, PAIR),
            conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            conv_norm(hidden, c_out, 1, groups=PAIR, act=None),
            ChannelShuffle(c_out, c_out // PAIR),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class IGCV3(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, *steps = strides([2, *(s for *_, s in IGCV3_STAGES)], stride)
        c_in = _even(32 * width)
        self.stem = conv_norm(channels, c_in, 3, first, act=nn.ReLU6)
        blocks: list[nn.Module] = []
        for (expansion, c, repeats, _), step in zip(IGCV3_STAGES, steps, strict=True):
            for index in range(repeats):
                c_out = _even(c * width)
                step_here = step if index == 0 else 1
                blocks.append(IGCV3Block(c_in, c_out, expansion, step_here, residual=index > 0))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        last = _even(1280 * max(1.0, width))
        self.last = conv_norm(c_in, last, 1, act=nn.ReLU6)
        self.head = nn.Linear(last, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.last(self.blocks(self.stem(x)))))


def _even(channels: float) -> int:
    whole = max(2, round(channels))
    return whole + whole % 2


def _divides(name: str, groups: int, width: int) -> None:
    if width % groups:
        raise ModelError(f"zoo {name}", f"groups {groups} does not divide width {width}")


def igcv1(
    width: int = 48, groups: int = 24, depth: int = 20, classes: int = 10, channels: int = 3
) -> nn.Module:
    """IGC-L24M2 for small images: `groups` is L, width / groups is M, doubled in every stage."""
    return IGCV1(width, groups, depth, classes, channels)


def igcv1_resnet18(
    width: int = 100, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """IGC-L100M2 for ImageNet: width is L, doubled in every stage. 8.61M weights, 1.3G MACs."""
    return IGCV1ResNet(width, classes, channels, stride)


def igcv2(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """IGCV2's blocks in MobileNetV1's frame, with the groups that cost least."""
    return IGCV2(width, classes, channels, stride)


def igcv3(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """IGCV3-D. 3.49M parameters and 313M MACs at 224x224 and width 1.0."""
    return IGCV3(width, classes, channels, stride)
