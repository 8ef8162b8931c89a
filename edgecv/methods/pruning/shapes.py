"""The layers of a network, and what they would be at other widths of its groups.

    c_in(k)  = C_in  - Σ_g share_g (C_g - k_g)        k_g: channels kept of group g
    MACs(k)  = Σ_l H W c_out (c_in / groups) k_h k_w
    bytes(k) = Σ_l (b weights + 4 biases)             b = 4 in float32, 1 in int8; norms folded

share_g is how many of the layer's channels one channel of the group stands for: one, or as many
as it has pixels where a dense layer reads a flattened map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.context import Context
from edgecv.measuring.product import Product, widened
from edgecv.methods.pruning.groups import Group
from edgecv.models.macs import macs as macs_of

Widths = tuple[int, ...]
BIAS = 4  # bytes


@dataclass(frozen=True)
class Layer:
    """One call of a convolution or dense layer, and the groups that its channels are of.

    reads, writes: (index of a group, channels of the layer for one of the group's)
    rows: how often it is computed for an image: a dense layer once a token
    """

    product: Product
    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]
    rows: int = 1

    def at(self, widths: Widths, full: Widths) -> Product:
        """The layer with those channels kept."""
        c_in, c_out = self.product.channels
        c_out -= sum(s * (full[g] - widths[g]) for g, s in self.writes)
        if self.depthwise:
            return widened(self.product, (c_out, c_out))
        c_in -= sum(s * (full[g] - widths[g]) for g, s in self.reads)
        return widened(self.product, (c_in, c_out))

    @property
    def depthwise(self) -> bool:
        c_in, c_out = self.product.channels
        return self.product.groups > 1 and self.product.groups == c_in == c_out


@dataclass(frozen=True)
class Shapes:
    """A network's layers, in the order in which they run, and the widths of its groups."""

    layers: tuple[Layer, ...]
    full: Widths

    def at(self, widths: Widths) -> list[Product]:
        return [layer.at(widths, self.full) for layer in self.layers]

    def summed(self, of: Callable[[Layer, Product], float]) -> Callable[[Widths], float]:
        """A figure of every layer, summed, as a function of widths. Asked for some ten thousand
        times: what is known of a layer at its own groups' widths is kept."""
        touched = [tuple(sorted({g for g, _ in (*m.reads, *m.writes)})) for m in self.layers]
        known: dict[tuple[int, ...], float] = {}

        def total(widths: Widths) -> float:
            found = 0.0
            for i, groups in enumerate(touched):
                key = (i, *(widths[g] for g in groups))
                if key not in known:
                    known[key] = of(self.layers[i], self.layers[i].at(widths, self.full))
                found += known[key]
            return found

        return total

    def macs(self) -> Callable[[Widths], float]:
        """Multiply-accumulates of one image, of widths."""
        return self.summed(lambda layer, product: float(layer.rows * product.macs))

    def size_bytes(self, weight: int = 4) -> Callable[[Widths], float]:
        """Bytes with batch norms folded, of widths; a layer that runs twice counts once.

        weight: bytes of a weight; a bias has four
        """
        last = {layer.product.layer: layer for layer in self.layers}

        def own(layer: Layer, product: Product) -> float:
            first = last[product.layer] is layer
            held = weight * weights(product) + BIAS * product.channels[1]
            return float(held) if first else 0.0

        return self.summed(own)


def weights(product: Product) -> int:
    """How many weights a layer has, without biases."""
    return product.channels[1] * (product.channels[0] // product.groups) * prod(product.kernel)


def shapes(module: nn.Module, groups: Sequence[Group], example: Tensor) -> Shapes:
    """Run one image through and note every layer."""
    names = {layer: name for name, layer in module.named_modules()}
    ran: list[tuple[Product, int]] = []

    def note(layer: Any, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Tensor) -> None:
        x = inputs[0] if inputs else named["input"]
        product = _product(names[layer], layer, x, output)
        ran.append((product, output.numel() // (product.channels[1] * prod(product.result))))

    hooks = [
        layer.register_forward_hook(note, with_kwargs=True)
        for layer in names
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module.eval()(example)
    for hook in hooks:
        hook.remove()
    shares: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for index, group in enumerate(groups):
        for member in group.members:
            share = len(member.at) // group.width
            shares.setdefault((member.name, member.side), []).append((index, share))
    layers = tuple(
        Layer(p, reads=tuple(shares.get((p.layer, "in"), ())),
              writes=tuple(shares.get((p.layer, "out"), ())), rows=rows)
        for p, rows in ran
    )  # fmt: skip
    return Shapes(layers, tuple(group.width for group in groups))


def _product(name: str, layer: Any, x: Tensor, y: Tensor) -> Product:
    if isinstance(layer, nn.Linear):
        return Product(name, "dense", (layer.in_features, layer.out_features))
    spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if isinstance(layer.padding, str):
        around = [s if layer.padding == "same" else 0 for s in spans]
        top, left = around[0] // 2, around[1] // 2
        pads = (top, left, around[0] - top, around[1] - left)
    else:
        pads = (*layer.padding, *layer.padding)
    sizes = [(m + pads[i] + pads[i + 2] - spans[i] - 1) // layer.stride[i] + 1
             for i, m in enumerate(x.shape[2:])]  # fmt: skip
    if sizes != list(y.shape[2:]):  # a forward of its own pads: as its output says
        more = [max(0, (n - 1) * s + span + 1 - m) for n, s, span, m in
                zip(y.shape[2:], layer.stride, spans, x.shape[2:], strict=True)]  # fmt: skip
        pads = (*(p // 2 for p in more), *(p - p // 2 for p in more))
    return Product(
        name, "conv", (layer.in_channels, layer.out_channels), tuple(x.shape[2:]),
        tuple(y.shape[2:]), tuple(layer.kernel_size), tuple(layer.stride), tuple(layer.dilation),
        pads, layer.groups,
    )  # fmt: skip


def example_of(context: Context) -> Tensor:
    """One image of zeros, as the network takes it."""
    return torch.zeros(1, context.preprocess.channels, *context.preprocess.size)


def macs(module: nn.Module, context: Context) -> int:
    """Multiply-accumulates of one image."""
    return macs_of(module, context.preprocess.channels, context.preprocess.size)


def size_bytes(module: nn.Module, weight: int = 4) -> int:
    """Bytes of the convolutions and dense layers, with batch norms folded into them.

    weight: bytes of a weight; a bias has four
    """
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(weight * m.weight.numel() + BIAS * len(m.weight) for m in layers)
