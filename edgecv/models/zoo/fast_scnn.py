"""Fast-SCNN: a branch of details and a branch of context share their first layers.

    y = classify(relu(details(z) + upsample(context(z)))),  z = the input divided by 8

Poudel et al. 2019, "Fast-SCNN: Fast Semantic Segmentation Network" (BMVC). Two things are not as
published. Context is gathered by the global average alone, as in BiSeNetV2's context embedding
(Yu et al. 2021), and not in bins of 1, 2, 3 and 6: bins that do not divide the map have no form in
ONNX and TFLite. And logits stay at an eighth of the input: bringing labels to the picture's size is
the runtime's, which does it once.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.zoo.blocks import InvertedResidual, conv_norm, divisible, kaiming

STRIDE = 8  # of the logits
DEEPEST = 32
EXPANSION = 6
# (channels, repeats, stride): the published table of the global feature extractor
CONTEXT = ((64, 3, 2), (96, 3, 2), (128, 3, 1))


def _separable(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(c_in, c_in, 3, stride, c_in, act=None), conv_norm(c_in, c_out, 1)
    )


class Surroundings(nn.Module):
    """x + relu(BN(W pool(x))): what the whole picture says, added everywhere."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU())
        self.mix = conv_norm(c, c, 3, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x + self.embed(F.adaptive_avg_pool2d(x, 1)))


class FastScnn(nn.Module):
    """float (N, channels, H, W), sides multiples of 32 -> logits float (N, classes, H/8, W/8).

    Raises ModelError: a side that 32 does not divide.
    """

    def __init__(self, width: float, classes: int, channels: int) -> None:
        super().__init__()
        c32, c48, c64, c128 = (divisible(c * width) for c in (32, 48, 64, 128))
        self.stem = nn.Sequential(
            conv_norm(channels, c32, 3, 2), _separable(c32, c48, 2), _separable(c48, c64, 2)
        )
        blocks: list[nn.Module] = []
        c_in = c64
        for c, repeats, stride in CONTEXT:
            for index in range(repeats):
                c_out = divisible(c * width)
                step = 1 if index else stride
                hidden = EXPANSION * c_in
                blocks.append(InvertedResidual(c_in, hidden, c_out, step, act=nn.ReLU))
                c_in = c_out
        self.context = nn.Sequential(*blocks, Surroundings(c128))
        self.deep = nn.Sequential(
            conv_norm(c128, c128, 3, groups=c128), conv_norm(c128, c128, 1, act=None)
        )
        self.fine = conv_norm(c64, c128, 1, act=None)
        self.join = nn.ReLU()
        self.classify = nn.Sequential(_separable(c128, c128), _separable(c128, c128))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Conv2d(c128, classes, 1)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % DEEPEST or x.shape[3] % DEEPEST:
            what = f"an input of {x.shape[2]}x{x.shape[3]} has sides that 32 does not divide"
            raise ModelError("zoo fast_scnn", what, "e.g. 256x256")
        z = self.stem(x)
        wide = F.interpolate(
            self.context(z), scale_factor=DEEPEST / STRIDE, mode="bilinear", align_corners=False
        )
        x = self.join(self.fine(z) + self.deep(wide))
        return self.head(self.dropout(self.classify(x)))


def fast_scnn(width: float = 1.0, classes: int = 19, channels: int = 3) -> nn.Module:
    """A class for every 8x8 pixels, two branches. 1.11M parameters and 208M MACs at 256x256."""
    return FastScnn(width, classes, channels)
