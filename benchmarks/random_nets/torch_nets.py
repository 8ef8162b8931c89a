"""`build(seed, side)`: a random torch network, its weights settled on a few pictures.

He weights, batch norms as the pictures leave them, a last layer that tells the classes apart: so
that a sound int8 form exists, and an engine that cannot reach it is at fault.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.random_nets.parts import (
    Attention,
    Concat,
    Does,
    Mixer,
    Residual,
    Rng,
    SpatialGate,
    SqueezeExcite,
    activation,
    norm,
)  # fmt: skip
from benchmarks.random_nets.pictures import CLASSES, extras, inputs, pictures
from benchmarks.random_nets.torch_heads import HEADS, NETWORKS, Head, Network

TWO_INPUTS = 0.12  # this share of the networks takes something beside the image


def build(seed: int, side: int = 24) -> nn.Module:
    """The network of a seed, in eval mode; the same each time."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    blocks: list[nn.Module] = []
    channels, now = 3, side
    first, channels, now = conv(rng, channels, now, widths=(8, 12, 16))
    blocks.append(first)
    for _ in range(int(rng.integers(2, 6))):
        block, channels, now = some_block(rng, channels, now)
        blocks.append(block)
    head = Head(channels, now, str(rng.choice(HEADS)))
    extra = str(rng.choice(["numbers", "mask"])) if rng.random() < TWO_INPUTS else None
    return settled(NETWORKS[extra](nn.Sequential(*blocks), head, channels, extra), side)


def conv(
    rng: Rng, c: int, side: int, widths: tuple[int, ...] = (8, 12, 16, 20, 24), same: bool = False
) -> tuple[nn.Module, int, int]:
    """Padding, convolution, norm and activation, of every geometry; same: keeps c and side."""
    kernel = int(rng.choice([1, 3, 3, 3, 5, 7] if same else [1, 2, 3, 3, 3, 4, 5, 6, 7]))
    stride = 1 if same or side < 8 else int(rng.choice([1, 1, 2]))
    dilation = int(rng.choice([1, 1, 1, 2])) if kernel in (2, 3) and side >= 8 else 1
    out = c if same else int(rng.choice(widths))
    pick, groups = rng.random(), 1
    if pick < 0.2 and c > 3:
        out, groups = (c if same else c * int(rng.choice([1, 2]))), c
    elif pick < 0.4:
        groups = int(rng.choice([g for g in (1, 2, 4) if c % g == 0 and out % g == 0]))
    total, parts = dilation * (kernel - 1), list[nn.Module]()
    mode, bias = str(rng.choice(["zeros"] * 5 + ["reflect", "replicate", "circular"])), rng.random()
    padding: int | str = total // 2
    if total % 2 or (rng.random() < 0.2 and not same):  # more on one side than on the other
        low = int(rng.integers(0, total + 1))
        parts.append(nn.ZeroPad2d((low, total - low, total - low, low)))
        padding, mode = 0, "zeros"
    elif stride == 1 and rng.random() < 0.15:
        padding = "same"
    if mode != "zeros" and (padding == "same" or padding == 0 or total // 2 >= side):
        mode = "zeros"
    made = nn.Conv2d(c, out, kernel, stride, padding, dilation, groups, bias > 0.5, mode)
    side = (side - 1) // stride + 1
    parts.append(made)
    if rng.random() < 0.75:
        parts.append(norm(rng, out, side))
    if rng.random() < 0.85:
        parts.append(activation(rng, out))
    return nn.Sequential(*parts), out, side


def deconv(rng: Rng, c: int, side: int) -> tuple[nn.Module, int, int]:
    """A transposed convolution, with groups and output_padding; at most 32 pixels come out."""
    stride = 1 if side > 16 else int(rng.choice([1, 2, 2]))
    kernel = int(rng.choice([2, 3, 4])) if stride == 2 else 3
    extra = int(rng.integers(0, stride))
    groups = int(rng.choice([g for g in (1, 1, 2, 4) if c % g == 0]))
    pad = int(rng.integers(0, (kernel + 1) // 2))
    out = groups * int(rng.integers(2, 5)) * 2
    made = nn.ConvTranspose2d(c, out, kernel, stride, pad, extra, groups, bool(rng.integers(2)))
    side = (side - 1) * stride - 2 * pad + kernel + extra
    return nn.Sequential(made, activation(rng, out)), out, side


def pool(rng: Rng, c: int, side: int) -> tuple[nn.Module, int, int]:
    """A pool of any kind that leaves at least two pixels."""
    kernel, stride = int(rng.choice([2, 3])), int(rng.choice([1, 2, 2]))
    pad, ceil = int(rng.integers(0, kernel // 2 + 1)), bool(rng.integers(2))
    pick = rng.random()
    if pick < 0.4:
        made: nn.Module = nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil)
    elif pick < 0.8:
        made = nn.AvgPool2d(kernel, stride, pad, ceil, bool(rng.integers(2)))
    else:
        made = nn.AdaptiveAvgPool2d(max(2, side // 2)) if side % 2 == 0 else nn.MaxPool2d(2)
    side = made(torch.zeros(1, 1, side, side)).shape[-1]
    return made, c, side


def shuffle(rng: Rng, c: int, side: int) -> tuple[nn.Module, int, int]:
    """Values that only move: shuffles, slices, splits, flips, paddings, resizes."""
    g = int(rng.choice([g for g in (2, 4, c) if c % g == 0] or [1]))
    half = c // 2
    small, even = side <= 12, side % 2 == 0 and side >= 6
    kinds: list[tuple[str, object, int, int]] = [
        (
            "channel shuffle",
            lambda x: x.view(x.shape[0], g, c // g, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
            c,
            side,
        ),
        ("nn.ChannelShuffle", nn.ChannelShuffle(g), c, side),
        ("every second channel", lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1), c, side),
        ("crop", lambda x: x[:, :, 1:, :-1] if side > 4 else x, c, side - 1 if side > 4 else side),
        ("glu", lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1), c, side),
        ("flip", lambda x: torch.flip(x, [3]), c, side),
        ("roll", lambda x: torch.roll(x, (1, 2), (2, 3)), c, side),
        ("reflect", nn.ReflectionPad2d(1), c, side + 2),
        ("replicate", nn.ReplicationPad2d((0, 1, 1, 0)), c, side + 1),
        ("constant", nn.ConstantPad2d((1, 0, 0, 1), 0.5), c, side + 1),
        ("split", lambda x: torch.cat([x[:, half:], F.relu(x[:, :half])], 1), c, side),
        ("chunk", lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), c, side),
    ]
    if c % 4 == 0:
        kinds.append(("pixel shuffle", nn.PixelShuffle(2), c // 4, 2 * side))
    if even and c <= 12:
        kinds.append(("pixel unshuffle", nn.PixelUnshuffle(2), 4 * c, side // 2))
    if even:
        kinds.append(("every second pixel", lambda x: x[:, :, ::2, 1::2], c, side // 2))
        kinds.append(("halved", lambda x: F.interpolate(x, scale_factor=0.5), c, side // 2))
    if small:
        for mode, corners in (("nearest", None), ("bilinear", False), ("bilinear", True)):
            kinds.append(
                (
                    f"{mode} {corners}",
                    lambda x, m=mode, k=corners: F.interpolate(
                        x, scale_factor=2, mode=m, align_corners=k
                    ),
                    c,
                    2 * side,
                )
            )
        larger = side + 3
        kinds.append(
            ("to a size", lambda x: F.interpolate(x, (larger, larger), mode="bilinear"), c, larger)
        )
    said, made, c, side = kinds[int(rng.integers(len(kinds)))]
    return made if isinstance(made, nn.Module) else Does(said, made), c, side  # type: ignore[arg-type]


def some_block(rng: Rng, c: int, side: int) -> tuple[nn.Module, int, int]:
    """One block of a body, its channels and its side."""
    pick = rng.random()
    if side > 32:
        return nn.MaxPool2d(2), c, side // 2
    if pick < 0.3:
        return conv(rng, c, side)
    if pick < 0.45:
        inner = nn.Sequential(*(conv(rng, c, side, same=True)[0] for _ in range(2)))
        return Residual(inner, int(rng.integers(3)), activation(rng, c)), c, side
    if pick < 0.53:
        branches = [conv(rng, c, side, same=True)[0] for _ in range(int(rng.integers(1, 3)))]
        if rng.random() < 0.5:
            branches.append(nn.MaxPool2d(3, 1, 1))
        branches.append(nn.Identity())
        return Concat(branches), c * len(branches), side
    if pick < 0.62:
        gate = nn.Hardsigmoid() if rng.random() < 0.4 else nn.Sigmoid()
        return SqueezeExcite(c, bool(rng.integers(2)), gate), c, side
    if pick < 0.65:
        return SpatialGate(), c, side
    if pick < 0.72 and side <= 10 and c % 2 == 0:
        return Attention(c, 2, bool(rng.integers(2))), c, side
    if pick < 0.75 and side <= 10:
        return Mixer(c, side * side, nn.GELU()), c, side
    if pick < 0.82:
        return deconv(rng, c, side)
    if pick < 0.9 and side >= 6:
        return pool(rng, c, side)
    return shuffle(rng, c, side)


@torch.no_grad()
def settled(net: Network, side: int) -> nn.Module:
    """He weights, batch norms of the pictures, a head that points from the mean to each class."""
    pixels, kinds = pictures(36, side, 0)
    x, y = torch.from_numpy(inputs(pixels)), torch.from_numpy(kinds)
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        if isinstance(m, nn.BatchNorm2d):
            m.weight.uniform_(0.6, 1.4), m.bias.uniform_(-0.3, 0.3)
            m.momentum = None
    given = (x, *extras(net.extra, len(x), side, 0).values())
    given = tuple(torch.as_tensor(v) for v in given)
    net.train()(*given)
    for m in net.eval().modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.1
    seen: list[Tensor] = []
    layer = net.last.head
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(*given)
    hook.remove()
    f = seen[0]
    f = f.mean((2, 3)) if f.ndim == 4 else f.mean(1) if f.ndim == 3 else f
    mu = torch.stack([f[y == k].mean(0) for k in range(CLASSES)])
    within = torch.stack([f[y == k].var(0) for k in range(CLASSES)]).mean(0)
    w = (mu - f.mean(0)) / (within + 0.1 * f.var() + 1e-9)
    w = w[: layer.weight.shape[0]]
    w *= 2.5 / ((f @ w.T).std() + 1e-9)
    layer.weight.copy_(w.reshape(layer.weight.shape))
    layer.bias.copy_(-(f @ w.T).mean(0))
    return net.eval()
