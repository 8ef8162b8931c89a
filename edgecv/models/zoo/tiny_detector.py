"""A small anchor-free detector: inverted residuals, a pyramid of three levels, decoupled heads.

    cells = Σ (H / s) (W / s),  s = 8, 16, 32
    one cell says (x, y, log w, log h, object, class 0, ..., class C-1), as YOLOX's files do:
    centre = (cell + (x, y)) s,  size = exp(log w, log h) s

Backbone: Sandler et al. 2018 (MobileNetV2). Neck: a path down and a path up again (Liu et al.,
"Path Aggregation Network", CVPR 2018) that adds instead of concatenating. Heads and what a cell
says: Ge et al., "YOLOX", 2021, with depthwise convolutions as in its nano.

Made for small integers: ReLU alone, sums alone, nearest upsampling, and widths that are multiples
of `width`. Boxes and scores are convolutions of their own, so each has its own grid until they are
put side by side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import InvertedResidual, conv_norm, kaiming

STRIDES = (8, 16, 32)
EXPANSION = 4
# (channels in multiples of the width, repeats) of the stages that divide by 4, 8, 16 and 32
STAGES = ((2, 2), (3, 3), (6, 3), (10, 2))
NECK = 4  # of the width
PRIOR = 0.01  # what scores say at first (Lin et al., "Focal Loss", ICCV 2017)


def separable(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(conv_norm(c_in, c_in, 3, stride, c_in), conv_norm(c_in, c_out, 1))


class Head(nn.Module):
    """(N, c, h, w) -> (N, 4, h, w), (N, 1, h, w), (N, classes, h, w): boxes, objects and classes,
    before the sigmoid."""

    def __init__(self, c: int, classes: int) -> None:
        super().__init__()
        self.place = nn.Sequential(separable(c, c), separable(c, c))
        self.kind = nn.Sequential(separable(c, c), separable(c, c))
        self.box, self.object = nn.Conv2d(c, 4, 1), nn.Conv2d(c, 1, 1)
        self.classes = nn.Conv2d(c, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        place, kind = self.place(x), self.kind(x)
        return self.box(place), self.object(place), self.classes(kind)


class TinyDetector(nn.Module):
    """float (N, channels, H, W), H and W multiples of 32.

    eval mode:  float (N, cells, 5 + classes), objects and classes after their sigmoid
    train mode: a list of float (N, 5 + classes, H / s, W / s), s = 8, 16, 32, all before it
    Raises ModelError: H or W that 32 does not divide.
    """

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, width, 3, 2)
        stages, c_in = [], width
        for times, repeats in STAGES:
            blocks = []
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(
                        c_in, EXPANSION * c_in, times * width, 1 if index else 2, act=nn.ReLU
                    )
                )
                c_in = times * width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        c = NECK * width
        wide = [times * width for times, _ in STAGES[1:]]
        self.sides = nn.ModuleList(conv_norm(w, c, 1) for w in wide)
        self.down = nn.ModuleList(separable(c, c) for _ in STRIDES[1:])
        self.halve = nn.ModuleList(separable(c, c, 2) for _ in STRIDES[1:])
        self.up = nn.ModuleList(separable(c, c) for _ in STRIDES[1:])
        self.heads = nn.ModuleList(Head(c, classes) for _ in STRIDES)
        kaiming(self)
        self._begin()

    def _begin(self) -> None:
        """Heads that say little at first: small weights, and scores of PRIOR."""
        for head in self.heads:
            assert isinstance(head, Head)
            for layer in (head.box, head.object, head.classes):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            for layer in (head.object, head.classes):
                assert layer.bias is not None
                nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if x.shape[2] % STRIDES[-1] or x.shape[3] % STRIDES[-1]:
            what = f"an input of {x.shape[2]}x{x.shape[3]} has sides that 32 does not divide"
            raise ModelError("zoo tiny_detector", what, "e.g. 320x320")
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels = self._pyramid([side(y) for side, y in zip(self.sides, levels[1:], strict=True)])
        said = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        if self.training:
            return [torch.cat(parts, 1) for parts in said]
        whole = [torch.cat([box, one.sigmoid(), of.sigmoid()], 1) for box, one, of in said]
        # channels last before they are flattened: as TFLite lays them out, it moves nothing then
        return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in whole], 1)

    def _pyramid(self, levels: list[Tensor]) -> list[Tensor]:
        """Each level with what the coarser ones say added, then with what the finer ones do."""
        small, middle, large = levels
        middle = self.down[0](middle + F.interpolate(large, scale_factor=2.0))
        small = self.down[1](small + F.interpolate(middle, scale_factor=2.0))
        middle = self.up[0](middle + self.halve[0](small))
        large = self.up[1](large + self.halve[1](middle))
        return [small, middle, large]


def tiny_detector(width: int = 16, classes: int = 80, channels: int = 3) -> nn.Module:
    """Anchor-free boxes in YOLOX's layout. 699k parameters and 416M MACs at 320x320, 80 classes."""
    return TinyDetector(width, classes, channels)
