"""Activations, layers and small modules that `torch_nets` puts together, in several spellings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rng = np.random.Generator


class Does(nn.Module):
    """A function as a module; `said` is what it is called in reports."""

    def __init__(self, said: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.said, self.function = said, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.said


SPELLINGS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "F.relu": lambda _: Does("F.relu", F.relu),
    "clamp(min=0)": lambda _: Does("clamp(min=0)", lambda x: x.clamp(min=0)),
    "maximum(x, 0)": lambda _: Does("maximum", lambda x: torch.maximum(x, torch.zeros_like(x))),
    "relu6": lambda _: nn.ReLU6(),
    "clamp(0, 6)": lambda _: Does("clamp(0, 6)", lambda x: x.clamp(0, 6)),
    "hardtanh": lambda _: nn.Hardtanh(),
    "leaky": lambda _: nn.LeakyReLU(0.1),
    "leaky by max": lambda _: Does("max(x, x/5)", lambda x: torch.max(x, 0.2 * x)),
    "prelu": lambda c: nn.PReLU(c),
    "prelu of one": lambda _: nn.PReLU(),
    "elu": lambda _: nn.ELU(),
    "selu": lambda _: nn.SELU(),
    "celu": lambda _: nn.CELU(0.7),
    "gelu": lambda _: nn.GELU(),
    "gelu tanh": lambda _: nn.GELU(approximate="tanh"),
    "gelu by erf": lambda _: Does("gelu by erf", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    "silu": lambda _: nn.SiLU(),
    "x sigmoid(x)": lambda _: Does("x sigmoid(x)", lambda x: x * torch.sigmoid(x)),
    "x / (1 + exp(-x))": lambda _: Does("x/(1+exp(-x))", lambda x: x / (1 + torch.exp(-x))),
    "mish": lambda _: nn.Mish(),
    "x tanh(softplus)": lambda _: Does("x tanh softplus", lambda x: x * torch.tanh(F.softplus(x))),
    "hardswish": lambda _: nn.Hardswish(),
    "x relu6(x+3)/6": lambda _: Does("x relu6(x+3)/6", lambda x: x * F.relu6(x + 3) / 6),
    "hardsigmoid": lambda _: nn.Hardsigmoid(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "tanh": lambda _: nn.Tanh(),
    "softplus": lambda _: nn.Softplus(),
    "softsign": lambda _: nn.Softsign(),
    "abs": lambda _: Does("abs", torch.abs),
    "relu squared": lambda _: Does("relu squared", lambda x: F.relu(x).square()),
    "sqrt(relu + e)": lambda _: Does("sqrt", lambda x: torch.sqrt(F.relu(x) + 0.01)),
    "where": lambda _: Does("where", lambda x: torch.where(x > 0, x, 0.1 * x)),
    "crelu": lambda c: Does("crelu", lambda x: F.relu(torch.cat([x, -x], 1))[:, :c]),
    "logsigmoid": lambda _: nn.LogSigmoid(),
}
COMMON = ["relu", "relu6", "silu", "hardswish", "gelu", "leaky"]


def activation(rng: Rng, channels: int) -> nn.Module:
    """One of SPELLINGS; half the time a common one."""
    return SPELLINGS[str(rng.choice(COMMON if rng.random() < 0.4 else list(SPELLINGS)))](channels)


class ChannelsLastNorm(nn.Module):
    """LayerNorm over the channels of a map, as ConvNeXt writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Affine(nn.Module):
    """x * scale + shift by channel, by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + 0.2 * torch.randn(1, channels, 1, 1))
        self.shift = nn.Parameter(0.2 * torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def norm(rng: Rng, channels: int, side: int) -> nn.Module:
    """A normalisation; most often of the batch."""
    pick = rng.random()
    if pick < 0.6:
        return nn.BatchNorm2d(channels)
    groups = int(rng.choice([g for g in (1, 2, 4, channels) if channels % g == 0]))
    return [
        lambda: nn.GroupNorm(groups, channels),
        lambda: nn.InstanceNorm2d(channels, affine=bool(rng.integers(2))),
        lambda: ChannelsLastNorm(channels),
        lambda: nn.LayerNorm([channels, side, side]),
        lambda: Affine(channels),
    ][int(rng.integers(5))]()


class Residual(nn.Module):
    """x + f(x), f(x) + x or x - f(x), with an activation behind it or none."""

    def __init__(self, inner: nn.Module, how: int, after: nn.Module) -> None:
        super().__init__()
        self.inner, self.how, self.after = inner, how, after

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return self.after(x + y if self.how == 0 else y + x if self.how == 1 else x - y)


class Concat(nn.Module):
    """The branches' answers, one behind the other."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([b(x) for b in self.branches], 1)


class SqueezeExcite(nn.Module):
    """x * gate(mean of x), the gate of 1x1 convolutions or of dense layers."""

    def __init__(self, channels: int, dense: bool, gate: nn.Module) -> None:
        super().__init__()
        self.dense, less = dense, max(2, channels // 4)
        kind = nn.Linear if dense else lambda i, o: nn.Conv2d(i, o, 1)
        self.gates = nn.Sequential(kind(channels, less), nn.ReLU(), kind(less, channels), gate)

    def forward(self, x: Tensor) -> Tensor:
        if self.dense:
            return x * self.gates(x.mean((2, 3)))[:, :, None, None]
        return x * self.gates(F.adaptive_avg_pool2d(x, 1))


class SpatialGate(nn.Module):
    """CBAM's second half: a gate by place, from the mean and the largest of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.conv(seen))


class Attention(nn.Module):
    """Self-attention over the places of a map: torch's, or written by hand."""

    def __init__(self, channels: int, heads: int, own: bool) -> None:
        super().__init__()
        self.heads, self.own, self.norm = heads, own, nn.LayerNorm(channels)
        self.mix = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        n = self.norm(t)
        if not self.own:
            t = t + self.mix(n, n, n, need_weights=False)[0]
        else:
            parts = self.qkv(n).reshape(-1, h * w, 3, self.heads, c // self.heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            seen = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1) @ v
            t = t + self.out(seen.transpose(1, 2).reshape(-1, h * w, c))
        return t.transpose(1, 2).reshape(-1, c, h, w)


class Mixer(nn.Module):
    """Dense layers over tokens and then over channels, with residuals."""

    def __init__(self, channels: int, places: int, act: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.tokens = nn.Linear(places, places)
        self.up, self.down, self.act = nn.Linear(channels, 2 * channels), nn.Linear(
            2 * channels, channels), act  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        t = x.flatten(2)
        t = t + self.tokens(self.first(t.transpose(1, 2)).transpose(1, 2))
        u = self.second(t.transpose(1, 2))
        return (t + self.down(self.act(self.up(u))).transpose(1, 2)).reshape(x.shape)
