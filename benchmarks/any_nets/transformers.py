"""Networks with attention and layer normalisation, for pictures of 32 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.any_nets.blocks import conv

WIDTH = 16


class Block(nn.Module):
    """Attention and a dense block, normalised before each (Dosovitskiy 2021)."""

    def __init__(self, width: int = WIDTH, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        x = x + self.out(self._attend(self.one(x)))
        out: Tensor = x + self.mlp(self.two(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        n, count, width = x.shape
        qkv = self.qkv(x).reshape(n, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weight = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return (weight @ v).transpose(1, 2).reshape(n, count, width)


class ViT(nn.Module):
    """Patches of 8 pixels, a class token, learned places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(
            0.3 * torch.randn(1, 17, WIDTH))  # fmt: skip
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        rows = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(len(x), -1, -1), rows], 1) + self.places
        out: Tensor = self.head(self.norm(self.blocks(rows))[:, 0])
        return out


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Liu 2022: depthwise 7x7, layer norm, two dense layers per pixel, a scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep, self.norm = (
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.LayerNorm(width),
        )
        self.wide, self.back = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(0.5 + torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.scale * self.back(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A stem, two blocks with a step down between, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12), ConvNeXtBlock(12), LayerNorm2d(12),
            nn.Conv2d(12, 16, 2, 2), ConvNeXtBlock(16))  # fmt: skip
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        out: Tensor = self.head(self.norm(self.body(x).mean((-2, -1))))
        return out


class MobileViT(nn.Module):
    """Mehta 2022: attention between the pixels at one place of all 2x2 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.open = conv(3, 12, 3, 4, act=nn.SiLU), nn.Conv2d(12, WIDTH, 1)
        self.block, self.close = Block(), conv(WIDTH, 12, 1, act=nn.SiLU)
        self.join, self.head = conv(24, 16, act=nn.SiLU), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        seen = self.stem(x)
        y = self.open(seen)
        n, c, h, w = y.shape
        y = y.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2)
        y = y.reshape(n, c, h * w // 4, 4).transpose(1, 3).reshape(n * 4, h * w // 4, c)
        y = self.block(y)
        y = y.reshape(n, 4, h * w // 4, c).transpose(1, 3)
        y = y.reshape(n * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(n, c, h, w)
        y = self.join(torch.cat([seen, self.close(y)], 1))
        out: Tensor = self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return out


class Swin(nn.Module):
    """Liu 2021: attention in windows of 4x4, the second time of the picture rolled by two."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.plain, self.shifted = Block(), Block()
        self.merge = nn.Linear(4 * WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        y = self.patches(x).permute(0, 2, 3, 1)
        y = self._windows(y, self.plain)
        y = torch.roll(self._windows(torch.roll(y, (-2, -2), (1, 2)), self.shifted), (2, 2), (1, 2))
        parts = [y[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        y = self.norm(self.merge(torch.cat(parts, -1)))
        out: Tensor = self.head(y.mean((1, 2)))
        return out

    def _windows(self, x: Tensor, block: nn.Module) -> Tensor:
        n, h, w, c = x.shape
        y = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = block(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        return y.reshape(n, h, w, c)


class EfficientFormer(nn.Module):
    """Li 2022: pools for mixers in four axes, then attention in three."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 12, 3, 2), conv(12, WIDTH, 3, 2))
        wide = 2 * WIDTH
        self.mlp = nn.Sequential(conv(WIDTH, wide, 1, act=nn.GELU), conv(wide, WIDTH, 1, act=None))
        self.down, self.block = conv(WIDTH, WIDTH, 3, 2, act=None), Block()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        y = self.stem(x)
        y = y + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        y = self.down(y + self.mlp(y))
        rows = self.block(y.flatten(2).transpose(1, 2))
        out: Tensor = self.head(self.norm(rows).mean(1))
        return out
