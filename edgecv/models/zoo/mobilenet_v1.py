"""MobileNetV1: every convolution but the first is depthwise separable.

    y = relu6(BN(conv1x1(relu6(BN(depthwise3x3(x))))))

Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications". `stride` is what the network divides its input by: 32 as published, 8 or 4 for small
images.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgecv.models.zoo.blocks import conv_norm, kaiming, pooled, strides

# (channels, stride) of the thirteen blocks: the published table
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5,
          (1024, 2), (1024, 1))  # fmt: skip


class MobileNetV1(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, stride: int) -> None:
        super().__init__()
        first, *steps = strides([2, *(s for _, s in BLOCKS)], stride)
        c_in = _scaled(32, width)
        self.stem = conv_norm(channels, c_in, 3, first, act=nn.ReLU6)
        blocks: list[nn.Module] = []
        for (c, _), step in zip(BLOCKS, steps, strict=True):
            c_out = _scaled(c, width)
            blocks.append(conv_norm(c_in, c_in, 3, step, c_in, nn.ReLU6))
            blocks.append(conv_norm(c_in, c_out, 1, act=nn.ReLU6))
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(c_in, classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.blocks(self.stem(x))))


def _scaled(channels: int, width: float) -> int:
    return max(8, int(channels * width))


def mobilenet_v1(
    width: float = 1.0, classes: int = 1000, channels: int = 3, stride: int = 32
) -> nn.Module:
    """Thirteen separable blocks. 4.23M parameters and 569M MACs at 224x224 and width 1.0."""
    return MobileNetV1(width, classes, channels, stride)
