"""How the networks of `torch_nets` end: outputs of one to five axes, several of them in a tuple, a
dict or both; and what some of them take beside the image.

A head has a layer `head` that tells the classes of the pictures apart (`torch_nets.settled` sets
its weights), applied to features, to every token or to every pixel, and what is made of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.random_nets.pictures import CLASSES

ROW = ("gap", "mean", "flatten", "softmax", "logsoftmax", "max", "lstm", "tokens", "conv")
HEADS = (
    *ROW,
    "number",  # (N,)
    "one", "embedding",  # (N, 1), (N, 16) of unit length
    "every token", "sequence", "depth", "boxes", "points",  # three axes
    "map", "upsampled", "normals", "sigmoids",  # four
    "anchors", "anchors last",  # five: (N, anchors, values, H, W), (N, anchors, H, W, values)
    "two", "dict", "pyramid", "nested", "with features", "all ranks", "with none",
)  # fmt: skip
EMBEDDED, ANCHORS = 16, 3
_PIXELS = ("conv", "map", "upsampled", "normals", "sigmoids", "depth", "boxes", "points",
           "anchors", "anchors last", "pyramid", "dict", "all ranks")  # fmt: skip


class Head(nn.Module):
    """(N, C, side, side) to what `kind` says. Layers that only some kinds need are only there."""

    def __init__(self, channels: int, side: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("lstm", "sequence"):
            self.lstm = nn.LSTM(channels * side, 12, batch_first=True)
        self.per_pixel = kind in _PIXELS
        if self.per_pixel:
            self.head: nn.Module = nn.Conv2d(channels, CLASSES, 1)
        else:
            width = {"flatten": channels * side * side, "lstm": 12, "sequence": 12}
            self.head = nn.Linear(
                width.get(kind, channels), 1 if kind in ("one", "number") else CLASSES
            )
        if kind in ("two", "embedding", "nested", "all ranks"):
            self.second: nn.Module = nn.Linear(channels, 3 if kind == "two" else EMBEDDED)
        elif kind == "boxes":
            self.second = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Any:
        if self.per_pixel:
            return self._pixels(x, self.head(x))
        if self.kind in ("lstm", "sequence"):
            y = self.lstm(x.permute(0, 2, 1, 3).flatten(2))[0]
            return self.head(y if self.kind == "sequence" else y[:, -1])
        if self.kind == "every token":
            return self.head(x.flatten(2).transpose(1, 2))
        f = self._features(x)
        y = self.head(f)
        if self.kind == "number":
            return y.squeeze(1)
        if self.kind == "softmax":
            return y.softmax(1)
        if self.kind == "logsoftmax":
            return F.log_softmax(y, 1)
        if self.kind == "embedding":
            return F.normalize(self.second(f), dim=1)
        if self.kind == "two":
            return y, self.second(f)
        if self.kind == "with features":
            return {"logits": y, "features": x}
        if self.kind == "with none":
            return y, None, {"features": f}
        if self.kind == "nested":
            levels = [x, F.max_pool2d(x, 2) if x.shape[-1] > 1 else x + 1]
            return {"levels": levels, "embedding": self.second(f), "logits": y}
        return y

    def _features(self, x: Tensor) -> Tensor:
        if self.kind == "flatten":
            return torch.flatten(x, 1)
        if self.kind == "max":
            return torch.amax(x, (2, 3))
        if self.kind == "mean":
            return x.mean((2, 3))
        if self.kind == "tokens":
            return x.flatten(2).transpose(1, 2).mean(1)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def _pixels(self, x: Tensor, y: Tensor) -> Any:
        n, _, h, w = y.shape
        pooled = F.adaptive_avg_pool2d(y, 1).flatten(1)
        if self.kind == "conv":
            return pooled
        if self.kind == "upsampled":
            return F.interpolate(y, scale_factor=2, mode="bilinear")
        if self.kind == "normals":
            return F.normalize(y[:, :3], dim=1)
        if self.kind == "sigmoids":
            return torch.sigmoid(y)
        if self.kind == "depth":
            return F.softplus(y[:, :1]).squeeze(1)
        if self.kind == "boxes":
            both = torch.cat([self.second(x), torch.sigmoid(y)], 1)
            return both.flatten(2).transpose(1, 2)
        if self.kind == "points":  # where each map has its weight
            weight = y.flatten(2).softmax(2).view_as(y)
            across, down = torch.linspace(0, 1, w), torch.linspace(0, 1, h)
            return torch.stack([(weight.sum(2) * across).sum(2), (weight.sum(3) * down).sum(2)], 2)
        if self.kind.startswith("anchors"):
            split = y.view(n, ANCHORS, CLASSES // ANCHORS, h, w)
            return split.permute(0, 1, 3, 4, 2) if self.kind == "anchors last" else split
        if self.kind == "pyramid":
            return y, F.interpolate(y, scale_factor=2), pooled
        if self.kind == "dict":
            return {"out": F.interpolate(y, scale_factor=2, mode="bilinear"), "aux": pooled}
        if self.kind == "all ranks":
            f = self.second(F.adaptive_avg_pool2d(x, 1).flatten(1))
            return (f.mean(1), f, y.flatten(2), y, y.view(n, ANCHORS, CLASSES // ANCHORS, h, w))
        return y


class Network(nn.Module):
    """A body of random blocks and a head.

    extra: what it takes beside the image, a name of `pictures.extras`
    """

    def __init__(self, body: nn.Module, head: Head, channels: int, extra: str | None) -> None:
        super().__init__()
        self.body, self.last, self.extra = body, head, extra
        if extra == "numbers":
            self.gain = nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.body(x))


class Conditioned(Network):
    """The same, each channel scaled by what four numbers say."""

    def forward(self, x: Tensor, numbers: Tensor) -> Any:  # type: ignore[override]
        return self.last(
            self.body(x) * (1 + 0.5 * torch.tanh(self.gain(numbers)))[:, :, None, None]
        )


class Masked(Network):
    """The same, of an image that a mask dims."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return self.last(self.body(x * torch.sigmoid(mask)))


NETWORKS = {None: Network, "numbers": Conditioned, "mask": Masked}
