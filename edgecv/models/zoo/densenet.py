"""DenseNet-BC: every layer reads what all layers before it in its block have written.

    x_l = [x_0, ..., x_{l-1}, H(x)],   H = BN-ReLU-conv1x1(4k)-BN-ReLU-conv3x3(k)

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017; a transition halves channels
and pixels. Pitfalls: the concatenations move more bytes than the convolutions compute, and batch
norm comes before the convolution, where it cannot be folded into one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import kaiming, pooled, strides

BOTTLENECK = 4  # channels of the 1x1 convolution, in units of the growth


class DenseLayer(nn.Module):
    """(N, C, H, W) -> (N, C + growth, H, W)."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1, self.relu1 = nn.BatchNorm2d(c_in), nn.ReLU()
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU()
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes).

    stem: what goes before the first block, of `c` channels out. steps: stride of each transition
    """

    def __init__(
        self, stem: nn.Module, c: int, growth: int, blocks: Sequence[int], steps: Sequence[int],
        classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = stem
        parts: list[nn.Module] = []
        for index, layers in enumerate(blocks):
            for _ in range(layers):
                parts.append(DenseLayer(c, growth))
                c += growth
            if index < len(blocks) - 1:
                pool = nn.AvgPool2d(2) if steps[index] == 2 else nn.Identity()
                parts += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), pool]
                c //= 2
        self.blocks = nn.Sequential(*parts, nn.BatchNorm2d(c), nn.ReLU())
        self.head = nn.Linear(c, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.blocks(self.stem(x))))


def densenet121(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Blocks of 6, 12, 24 and 16 layers, growth 32. 7.98M parameters and 2.83G MACs at 224x224."""
    growth = max(1, round(32 * width))
    first, pool, *steps = strides([2] * 5, stride)
    stem = nn.Sequential(
        nn.Conv2d(channels, 2 * growth, 7, first, 3, bias=False),
        nn.BatchNorm2d(2 * growth),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1) if pool == 2 else nn.Identity(),
    )
    return DenseNet(stem, 2 * growth, growth, (6, 12, 24, 16), steps, classes)


def densenet_cifar(
    depth: int = 100, growth: int = 12, classes: int = 10, channels: int = 3
) -> nn.Module:
    """DenseNet-BC for small images. 0.77M parameters at depth 100, growth 12."""
    layers, rest = divmod(depth - 4, 6)
    if rest or layers < 1:
        what = f"depth must be 6 n + 4, got {depth}"
        raise ModelError("zoo densenet_cifar", what, "e.g. 22, 40, 100")
    stem = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
    return DenseNet(stem, 2 * growth, growth, (layers,) * 3, (2, 2), classes)
