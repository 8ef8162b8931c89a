"""Small networks of the kinds that people bring, for pictures of 32 pixels: `NETWORKS[name](seed)`.

Each is what its papers' blocks are made of, at a width where an export takes seconds. Weights and
the statistics of batch normalisation are drawn, so that answers vary with the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.any_nets import transformers as t
from benchmarks.any_nets.blocks import (
    GhostModule,
    InvertedResidual,
    RepVGG,
    Res2Net,
    ShuffleUnit,
    conv,
    trunk,
)

SIDE = 32


class UNet(nn.Module):
    """Ronneberger 2015, two levels; upwards by transposed convolutions or bilinearly."""

    def __init__(self, bilinear: bool) -> None:
        super().__init__()
        self.bilinear = bilinear
        self.one, self.two, self.three = conv(3, 8), conv(8, 16), conv(16, 16)
        self.up_two = nn.Conv2d(16, 16, 1) if bilinear else nn.ConvTranspose2d(16, 16, 2, 2)
        self.up_one = nn.Conv2d(16, 8, 1) if bilinear else nn.ConvTranspose2d(
            16, 8, 3, 2, padding=1, output_padding=1)  # fmt: skip
        self.join_two, self.join_one, self.head = conv(32, 16), conv(16, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, H, W)."""
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        y = self.join_two(
            torch.cat([two, self._up(self.up_two, self.three(F.max_pool2d(two, 2)))], 1)
        )
        out: Tensor = self.head(self.join_one(torch.cat([one, self._up(self.up_one, y)], 1)))
        return out

    def _up(self, layer: nn.Module, x: Tensor) -> Tensor:
        if self.bilinear:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        made: Tensor = layer(x)
        return made


class TwoInputs(nn.Module):
    """A picture and four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.numbers, self.head = trunk(16), nn.Linear(4, 8), nn.Linear(24, 3)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        """(N, 3, H, W), (N, 4) -> (N, 3)."""
        seen = F.adaptive_avg_pool2d(self.trunk(image), 1).flatten(1)
        out: Tensor = self.head(torch.cat([seen, F.relu(self.numbers(numbers))], 1))
        return out


class ThreeOutputs(nn.Module):
    """Classes, a box and a mask of one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classes, self.box = trunk(16), nn.Linear(16, 5), nn.Linear(16, 4)
        self.mask = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> (N, 5), (N, 4), (N, 2, H/4, W/4)."""
        seen = self.trunk(x)
        row = F.adaptive_avg_pool2d(seen, 1).flatten(1)
        return self.classes(row), self.box(row).sigmoid(), self.mask(seen)


class Regression(nn.Module):
    """One number, by a mean over height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1)."""
        out: Tensor = self.head(self.trunk(x).mean((2, 3)))
        return out


class Embedding(nn.Module):
    """A vector of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 12)."""
        return F.normalize(self.head(F.adaptive_avg_pool2d(self.trunk(x), 1).flatten(1)))


class Super(nn.Module):
    """ESPCN (Shi 2016): twice the size by a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = (
            nn.Sequential(conv(3, 12), conv(12, 12)),
            nn.Conv2d(12, 12, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, 2H, 2W)."""
        return F.pixel_shuffle(self.last(self.body(x)), 2)


class Recurrent(nn.Module):
    """A recurrent layer over the columns of a convolutional network (CRNN, Shi 2015)."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], bidirectional: bool) -> None:
        super().__init__()
        self.trunk = trunk(16)
        self.layer = kind(16, 12, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear(12 * (1 + bidirectional), 6)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, W/4, 6)."""
        rows = self.trunk(x).mean(2).permute(0, 2, 1)
        out: Tensor = self.head(self.layer(rows)[0])
        return out


class Detector(nn.Module):
    """Two levels joined by a feature pyramid, boxes decoded in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.down = trunk(16), conv(16, 16, 3, 2)
        self.lateral, self.smooth, self.head = (
            nn.Conv2d(16, 16, 1),
            conv(16, 16),
            nn.Conv2d(16, 8, 1),
        )
        for k, n in ((0, 8), (1, 4)):
            y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
            self.register_buffer(f"grid{k}", torch.stack([x, y], -1).reshape(1, n * n, 2).float())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 80, 8): boxes (x, y, w, h) in pixels, a score and 3 classes."""
        fine = self.trunk(x)
        coarse = self.down(fine)
        up = F.interpolate(self.lateral(coarse), scale_factor=2.0, mode="nearest")
        rows = []
        for k, (level, stride) in enumerate(((self.smooth(fine + up), 4.0), (coarse, 8.0))):
            p = self.head(level).flatten(2).permute(0, 2, 1)
            xy = (p[..., :2] + getattr(self, f"grid{k}")) * stride
            wh = p[..., 2:4].exp() * stride
            rows.append(torch.cat([xy, wh, p[..., 4:].sigmoid()], -1))
        return torch.cat(rows, 1)


class Keypoints(nn.Module):
    """Heat maps by transposed convolutions (Xiao 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk(16)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(16, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 5, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5, H/2, W/2)."""
        out: Tensor = self.up(self.trunk(x))
        return out


class Depth(nn.Module):
    """Depth by bilinear steps, between 0 and 10."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.mid, self.last = trunk(16), conv(16, 8), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1, H, W)."""
        y = F.interpolate(self.trunk(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = F.interpolate(self.mid(y), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.last(y).sigmoid() * 10.0


class ASPP(nn.Module):
    """Dilated convolutions beside each other, and the whole picture (Chen 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk(16)
        self.arms = nn.ModuleList([conv(16, 8, 3, dilation=d) for d in (1, 2, 4)])
        self.whole, self.join, self.head = nn.Conv2d(16, 8, 1), conv(32, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, H, W)."""
        seen = self.trunk(x)
        whole = F.relu(self.whole(F.adaptive_avg_pool2d(seen, 1)))
        whole = F.interpolate(whole, size=seen.shape[2:], mode="bilinear", align_corners=False)
        y = self.head(self.join(torch.cat([*(arm(seen) for arm in self.arms), whole], 1)))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


def _classifier(
    *blocks: nn.Module, width: int, act: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    return nn.Sequential(conv(3, 16, 3, 2, act=act), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 5))  # fmt: skip


def _mobile() -> nn.Module:
    return _classifier(InvertedResidual(16, 24, 2), InvertedResidual(24, 24, 1), width=24,
                       act=nn.Hardswish)  # fmt: skip


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, transposed": lambda: UNet(False),
    "U-Net, bilinear": lambda: UNet(True),
    "two inputs": TwoInputs,
    "three outputs": ThreeOutputs,
    "regression": Regression,
    "embedding": Embedding,
    "ViT": t.ViT,
    "ConvNeXt": t.ConvNeXt,
    "MobileNetV3": _mobile,
    "super-resolution": Super,
    "LSTM over a CNN": lambda: Recurrent(nn.LSTM, True),
    "GRU over a CNN": lambda: Recurrent(nn.GRU, False),
    "detector": Detector,
    "keypoints": Keypoints,
    "depth": Depth,
    "MobileViT": t.MobileViT,
    "Swin": t.Swin,
    "EfficientFormer": t.EfficientFormer,
    "GhostNet": lambda: _classifier(GhostModule(16, 24), GhostModule(24, 24), width=24),
    "ShuffleNet": lambda: _classifier(ShuffleUnit(16), ShuffleUnit(16), width=16),
    "Res2Net": lambda: _classifier(Res2Net(16), Res2Net(16), width=16),
    "ASPP": ASPP,
    "RepVGG": lambda: _classifier(RepVGG(16), RepVGG(16), width=16),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of `MAKERS` with drawn weights and statistics, in evaluation mode."""
    torch.manual_seed(seed)
    model = MAKERS[name]()
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, nn.ConvTranspose2d):  # its fan counts what strides leave out
            layer.weight.data *= layer.stride[0]
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(layer.weight, 0.8, 1.4)
            nn.init.normal_(layer.bias, std=0.2)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """What a network reads, by name."""
    image: dict[str, Any] = {"image": (1, 3, SIDE, SIDE)}
    return {**image, "numbers": (1, 4)} if name == "two inputs" else image
