"""Small networks whose channels hang together in every way that prune has to follow, and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.context import Context
from edgecv.data.images import Images
from edgecv.models import zoo
from edgecv.runtime.preprocess import Preprocess

SIZE, CLASSES = 16, 4


def conv(c_in: int, c_out: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, **options)


def chain(*middle: nn.Module, width: int = 16) -> nn.Module:
    """conv, what is given, conv, ReLU, pool, dense."""
    head = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))
    return nn.Sequential(conv(3, width), *middle, conv(width, width), *head)


class Concat(nn.Module):
    """dense(pool(conv(cat(a(x), b(x)))))."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(3, 24), conv(40, 16)
        self.norm, self.head = nn.BatchNorm2d(40), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


class Flattened(nn.Module):
    """A dense layer after flatten: every channel is 16 of its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 16, stride=4), nn.Linear(16 * 16, 32)
        self.norm, self.head = nn.BatchNorm1d(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.b(torch.relu(self.a(x)).flatten(1)))))


class Gated(nn.Module):
    """Squeeze and excitation: a channel's gate goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 16), nn.Linear(16, CLASSES)
        self.squeeze, self.gate = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = x * torch.sigmoid(self.gate(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(torch.relu(self.b(x)).mean((2, 3)))


class Shared(nn.Module):
    """One convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.head(x.mean((2, 3)))


class Chunked(nn.Module):
    """Half of the channels multiply the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 32), conv(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).chunk(2, 1)
        return self.head(torch.relu(self.b(left * right)).mean((2, 3)))


class Between(nn.Module):
    """Something stands between `a` and its reader `b`; `c` behind is free."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 16), conv(16, 16)
        self.head, self.between = nn.Linear(16, CLASSES), between

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.between(torch.relu(self.a(x))))
        return self.head(torch.relu(self.c(torch.relu(x))).mean((2, 3)))


def shuffled(x: Tensor) -> Tensor:
    """Channels in another order, as ShuffleNet does it, whatever their number."""
    n, c, h, w = x.shape
    return x.reshape(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def gated(x: Tensor) -> Tensor:
    """Half of the channels gate the other half."""
    left, right = x.chunk(2, 1)
    return torch.cat([right, left * torch.sigmoid(right)], 1)


# What the dependency graph reads wrongly, or not at all.
REORDERED: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffle": shuffled,
    "flip": lambda x: x.flip(1),
    "roll": lambda x: torch.roll(x, 3, 1),
    "chunk-and-cat": gated,
    "fixed-shape": lambda x: x.reshape(-1, 16, SIZE * SIZE).reshape(-1, 16, SIZE, SIZE),
    "mean-over-channels": lambda x: x - x.mean(1, keepdim=True),
}


class TwoHeads(nn.Module):
    """Logits from two dense layers, one beside the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right = conv(3, 16), nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)).mean((2, 3))
        return torch.cat([self.left(x), self.right(x)], 1)


PRUNABLE: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: zoo.build("resnet8", width=16, classes=CLASSES),
    "inverted-residual": lambda: zoo.build("mobilenet_v2_small", width=16, classes=CLASSES),
    "concat": Concat,
    "flatten": Flattened,
    "gated": Gated,
    "shared": Shared,
    "batch-norm": lambda: chain(nn.BatchNorm2d(16), nn.ReLU6()),
    "batch-norm-without-weights": lambda: chain(nn.BatchNorm2d(16, affine=False)),
    "prelu": lambda: chain(nn.PReLU(16)),
    "prelu-one-slope": lambda: chain(nn.PReLU()),
    "depthwise": lambda: chain(conv(16, 16, groups=16, bias=False), nn.ReLU()),
    "depthwise-multiplier": lambda: chain(conv(16, 32, groups=16), conv(32, 16)),
    "grouped": lambda: chain(conv(16, 16, groups=4)),
}
# Layers whose channels prune leaves alone: what is around them can still go.
STIFF: dict[str, Callable[[], nn.Module]] = {
    "group-norm": lambda: chain(nn.GroupNorm(4, 16)),
    "instance-norm": lambda: chain(nn.InstanceNorm2d(16, affine=True)),
    "layer-norm": lambda: chain(nn.LayerNorm([16, SIZE, SIZE])),
    "transposed": lambda: chain(nn.ConvTranspose2d(16, 16, 2, 2)),
    "pixel-shuffle": lambda: chain(conv(16, 64), nn.PixelShuffle(2)),
    "chunk": Chunked,
}


def images(count: int = 40, seed: int = 0, channels: int = 3) -> Images:
    """Noise with a bright stripe whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.integers(0, 160, (count, SIZE, SIZE, channels), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] += 90
    return Images(pixels, labels.astype(np.int64), tuple("abcd"))


def context(out: Path, **options: Any) -> Context:
    channels = options.pop("channels", 3)
    out.mkdir(parents=True, exist_ok=True)
    sets = {"train": images(channels=channels), "test": images(20, 1, channels)}
    pre = Preprocess((SIZE, SIZE), channels, (127.0,), (64.0,), crop_pct=1.0)
    return Context(**{"out": out, "seed": 0, "preprocess": pre, "images": sets.get, **options})


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()
