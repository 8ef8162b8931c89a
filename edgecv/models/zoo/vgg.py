"""VGG: nothing but 3x3 convolutions, halvings and dense layers.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, with batch norm or, as published, without. For small images the three dense layers are one
and every convolution has batch norm (Li et al., "Pruning Filters for Efficient ConvNets", 2017):
vgg_cifar. Pitfall: nine tenths of the ImageNet networks' weights are the first dense layer's.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import divisible, kaiming, pooled

# convolutions in each of the five stages, by the number of layers with weights
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """float (N, channels, size, size) -> logits float (N, classes)."""

    def __init__(
        self, depth: int, width: float, classes: int, channels: int, size: int, batch_norm: bool
    ) -> None:
        super().__init__()
        if size < 32:
            raise ModelError(f"zoo vgg{depth}", f"size {size} is below 32", "vgg_cifar takes any")
        layers, c = _stages(depth, width, channels, batch_norm, bias=True)
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        dense = divisible(4096 * width)
        self.dense = nn.Sequential(
            nn.Linear(c * (size // 32) ** 2, dense), nn.ReLU(), nn.Dropout(),
            nn.Linear(dense, dense), nn.ReLU(), nn.Dropout(),
        )  # fmt: skip
        self.head = nn.Linear(dense, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dense(self.features(x).flatten(1)))


class VGGCifar(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes); H and W at least 16."""

    def __init__(self, depth: int, width: float, classes: int, channels: int) -> None:
        super().__init__()
        layers, c = _stages(depth, width, channels, batch_norm=True, bias=False)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(c, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.features(x)))


def _stages(
    depth: int, width: float, c_in: int, batch_norm: bool, bias: bool
) -> tuple[list[nn.Module], int]:
    """Five stages with a halving between them, and their number of channels out."""
    if depth not in DEPTHS:
        listed = ", ".join(map(str, DEPTHS))
        raise ModelError("zoo vgg", f"depth must be one of {listed}, got {depth}")
    layers: list[nn.Module] = []
    for stage, repeats in enumerate(DEPTHS[depth]):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(repeats):
            c_out = divisible(WIDTHS[stage] * width)
            layers.append(nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias))
            layers += [nn.BatchNorm2d(c_out)] if batch_norm else []
            layers.append(nn.ReLU())
            c_in = c_out
    return layers, c_in


def vgg11(
    width: float = 1.0,
    classes: int = 1000,
    channels: int = 3,
    size: int = 224,
    batch_norm: bool = False,
) -> nn.Module:
    """Eight convolutions. 132.9M parameters and 7.6G MACs at 224x224."""
    return VGG(11, width, classes, channels, size, batch_norm)


def vgg13(
    width: float = 1.0,
    classes: int = 1000,
    channels: int = 3,
    size: int = 224,
    batch_norm: bool = False,
) -> nn.Module:
    """Ten convolutions. 133.0M parameters and 11.3G MACs at 224x224."""
    return VGG(13, width, classes, channels, size, batch_norm)


def vgg16(
    width: float = 1.0,
    classes: int = 1000,
    channels: int = 3,
    size: int = 224,
    batch_norm: bool = False,
) -> nn.Module:
    """Thirteen convolutions. 138.4M parameters and 15.5G MACs at 224x224."""
    return VGG(16, width, classes, channels, size, batch_norm)


def vgg19(
    width: float = 1.0,
    classes: int = 1000,
    channels: int = 3,
    size: int = 224,
    batch_norm: bool = False,
) -> nn.Module:
    """Sixteen convolutions. 143.7M parameters and 19.6G MACs at 224x224."""
    return VGG(19, width, classes, channels, size, batch_norm)


def vgg_cifar(
    depth: int = 16, width: float = 1.0, classes: int = 10, channels: int = 3
) -> nn.Module:
    """VGG for small images, with batch norm. 14.7M parameters and 313M MACs at 32x32, depth 16."""
    return VGGCifar(depth, width, classes, channels)
