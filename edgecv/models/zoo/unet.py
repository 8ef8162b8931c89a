"""U-Net: down by pooling, up by interpolation, and across what was seen at each size.

    up_i = convs([down_i, bilinear(conv1x1(up_(i+1)))])

Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", with
batch norm, padding that keeps the size, and in place of the transposed convolution a 1x1 one before
the interpolation: fewer weights, no checkerboard, and every target runs it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo import MAX_COUNT
from edgecv.models.zoo.blocks import conv_norm, kaiming


def _twice(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(c_in, c_out, 3), conv_norm(c_out, c_out, 3))


class UNet(nn.Module):
    """float (N, channels, H, W), sides multiples of 2^depth -> logits float (N, classes, H, W).

    Raises ModelError: a side that 2^depth does not divide.
    """

    def __init__(self, width: int, classes: int, channels: int, depth: int) -> None:
        super().__init__()
        widths = [width << i for i in range(depth + 1)]
        self.step = 1 << depth
        self.stem = _twice(channels, width)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(_twice(a, b) for a, b in pairs)
        self.narrow = nn.ModuleList(conv_norm(b, a, 1) for a, b in reversed(pairs))
        self.up = nn.ModuleList(_twice(2 * a, a) for a, _ in reversed(pairs))
        self.head = nn.Conv2d(width, classes, 1)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % self.step or x.shape[3] % self.step:
            size = f"{x.shape[2]}x{x.shape[3]}"
            what = f"an input of {size} has sides that {self.step} does not divide"
            raise ModelError("zoo unet", what, "give another size, or a smaller depth")
        x = self.stem(x)
        across = []
        for down in self.down:
            across.append(x)
            x = down(F.max_pool2d(x, 2))
        for narrow, up, seen in zip(self.narrow, self.up, reversed(across), strict=True):
            wide = F.interpolate(narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(torch.cat([seen, wide], 1))
        return self.head(x)


def unet(width: int = 16, classes: int = 21, channels: int = 3, depth: int = 4) -> nn.Module:
    """A class for every pixel, at full size. 1.81M parameters and 2.95G MACs at 256x256."""
    deepest = width << min(depth, 64)
    if deepest > MAX_COUNT:
        what = f"has {deepest:,} channels at its deepest, at most {MAX_COUNT:,}"
        raise ModelError("zoo unet", what, "a smaller width or depth")
    return UNet(width, classes, channels, depth)
