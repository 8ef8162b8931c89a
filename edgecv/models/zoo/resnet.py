"""Residual networks, for small images (32x32 or 28x28) and for ImageNet.

    y = relu(F(x) + P(x)),   F = conv3x3-BN-ReLU-conv3x3-BN,   P = identity or conv1x1-BN

He et al. 2016, "Deep Residual Learning for Image Recognition". Small images, section 4.2: a 3x3
stem, three stages of n basic blocks with w, 2w and 4w channels, stride 2 into the second and the
third, a global average and a linear head: 6n+2 layers. The paper's zero-padded shortcuts (option A)
are 1x1 projections here (option B), unless `shortcut: zeros` asks for them: padding channels cannot
be pruned or fused. resnet8 is the n = 1 network of MLPerf Tiny (Banbury et al. 2021).

ImageNet, table 1: a 7x7 stem, four stages, from 50 layers on with bottlenecks, F = conv1x1-conv3x3-
conv1x1, whose stride is on the 3x3 convolution, as every published set of weights has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import conv_norm, divisible, kaiming, pooled, strides


class ZeroShortcut(nn.Module):
    """Every stride-th pixel, and channels of zeros after those there are: no parameters."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))

    def extra_repr(self) -> str:
        return f"more={self.more}, stride={self.stride}"


class BasicBlock(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, c_in: int, c_out: int, stride: int, zeros: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = (
                ZeroShortcut(c_out - c_in, stride)
                if zeros
                else conv_norm(c_in, c_out, 1, stride, act=None)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride)), a quarter of c_out inside."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        inner = c_out // 4
        self.reduce = conv_norm(c_in, inner, 1)
        self.conv = conv_norm(inner, inner, 3, stride)
        self.expand = conv_norm(inner, c_out, 1, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = conv_norm(c_in, c_out, 1, stride, act=None)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.expand(self.conv(self.reduce(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(
        self, blocks: int, width: int, classes: int, channels: int, shortcut: str = "projection"
    ) -> None:
        super().__init__()
        if shortcut not in ("projection", "zeros"):
            what = f"shortcut must be projection or zeros, got {shortcut!r}"
            raise ModelError(f"zoo resnet{6 * blocks + 2}", what)
        block = partial(BasicBlock, zeros=shortcut == "zeros")
        self.stem = conv_norm(channels, width, 3)
        self.stage1 = _stage(block, blocks, width, width, stride=1)
        self.stage2 = _stage(block, blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(block, blocks, 2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.stage3(self.stage2(self.stage1(self.stem(x))))))


class ResNetImageNet(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes).

    blocks: how many in each of the four stages. bottleneck: of three convolutions, four times wider
    """

    def __init__(
        self, blocks: Sequence[int], bottleneck: bool, width: float, classes: int, channels: int,
        stride: int,
    ) -> None:  # fmt: skip
        super().__init__()
        first, pool, *steps = strides([2, 2, 1, 2, 2, 2], stride)
        c_in = divisible(64 * width)
        self.stem = conv_norm(channels, c_in, 7, first)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if pool == 2 else nn.Identity()
        block = Bottleneck if bottleneck else BasicBlock
        stages: list[nn.Module] = []
        for index, (repeats, step) in enumerate(zip(blocks, steps, strict=True)):
            c_out = divisible(64 * 2**index * width) * (4 if bottleneck else 1)
            stages.append(_stage(block, repeats, c_in, c_out, step))
            c_in = c_out
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(c_in, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.stages(self.pool(self.stem(x)))))


def _stage(
    block: type[BasicBlock] | type[Bottleneck] | partial[BasicBlock],
    blocks: int, c_in: int, c_out: int, stride: int,
) -> nn.Sequential:  # fmt: skip
    first = block(c_in, c_out, stride)
    return nn.Sequential(first, *(block(c_out, c_out, 1) for _ in range(blocks - 1)))


def resnet8(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """One block a stage. 78k parameters and 12.5M MACs at 32x32 with the defaults."""
    return ResNet(1, width, classes, channels, shortcut)


def resnet20(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """Three blocks a stage. 272k parameters and 41M MACs at 32x32 with the defaults."""
    return ResNet(3, width, classes, channels, shortcut)


def resnet32(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """Five blocks a stage. 467k parameters and 69M MACs at 32x32 with the defaults."""
    return ResNet(5, width, classes, channels, shortcut)


def resnet44(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """Seven blocks a stage. 661k parameters and 97M MACs at 32x32 with the defaults."""
    return ResNet(7, width, classes, channels, shortcut)


def resnet56(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """Nine blocks a stage. 856k parameters and 126M MACs at 32x32 with the defaults."""
    return ResNet(9, width, classes, channels, shortcut)


def resnet110(
    width: int = 16, classes: int = 10, channels: int = 3, shortcut: str = "projection"
) -> nn.Module:
    """Eighteen blocks a stage. 1.73M parameters and 253M MACs at 32x32 with the defaults."""
    return ResNet(18, width, classes, channels, shortcut)


def resnet18(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Two basic blocks a stage. 11.7M parameters and 1.81G MACs at 224x224."""
    return ResNetImageNet((2, 2, 2, 2), False, width, classes, channels, stride)


def resnet34(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Sixteen basic blocks. 21.8M parameters and 3.66G MACs at 224x224."""
    return ResNetImageNet((3, 4, 6, 3), False, width, classes, channels, stride)


def resnet50(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Sixteen bottlenecks. 25.6M parameters and 4.09G MACs at 224x224."""
    return ResNetImageNet((3, 4, 6, 3), True, width, classes, channels, stride)


def resnet101(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Thirty-three bottlenecks. 44.5M parameters and 7.80G MACs at 224x224."""
    return ResNetImageNet((3, 4, 23, 3), True, width, classes, channels, stride)


def resnet152(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Fifty bottlenecks. 60.2M parameters and 11.5G MACs at 224x224."""
    return ResNetImageNet((3, 8, 36, 3), True, width, classes, channels, stride)
