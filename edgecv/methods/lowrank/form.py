"""What a layer is to a factorisation, and what a form of factorisation can tell of itself.

A form replaces one layer by a row of smaller ones with nothing between them. Its parts are known
from the layer's shape and the ranks alone, so that an edit replays them without any weights, and
MACs and an engine's time are known before anything is decomposed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Ranks = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """A convolution or a dense layer without its weights.

    channels:     (in, out)
    padding:      as torch has it: pixels by axis, "same" or "valid"
    mode:         padding_mode of torch
    size, result: height and width of input and output; result is (rows, 1) for a dense layer
    """

    kind: str
    channels: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair | str = (0, 0)
    dilation: Pair = (1, 1)
    mode: str = "zeros"
    groups: int = 1
    bias: bool = False
    size: Pair = (1, 1)
    result: Pair = (1, 1)

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """(out, in / groups, kernel height, kernel width): the weight's, of a dense layer as 1x1"""
        return (self.channels[1], self.channels[0] // self.groups, *self.kernel)

    @property
    def weights(self) -> int:
        return prod(self.dims)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return prod(self.result) * self.weights

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1)

    def along(self, axis: int) -> Shape:
        """With kernel, stride, padding and dilation along one axis alone; 0 is height."""

        def only(pair: Pair, rest: int) -> Pair:
            return (pair[0], rest) if axis == 0 else (rest, pair[1])

        padding = self.padding if isinstance(self.padding, str) else only(self.padding, 0)
        return replace(
            self,
            kernel=only(self.kernel, 1),
            stride=only(self.stride, 1),
            padding=padding,
            dilation=only(self.dilation, 1),
        )


class Form(ABC):
    """One way to write a layer as a product. Weights are float64 arrays (out, in, kh, kw)."""

    name: ClassVar[str]

    @abstractmethod
    def most(self, shape: Shape) -> Ranks:
        """The ranks at which it is the layer itself, exactly."""

    @abstractmethod
    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        """The layers in place of it, in order; the last has its bias."""

    @abstractmethod
    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        """Singular values from the largest, and the matrix they are of, for each of its matrices.

        covariance: the values count what is left of the outputs' energy, where the form can
        """

    @abstractmethod
    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """The parts' weights, for the smallest ‖W − Ŵ‖, or E‖(W − Ŵ) x‖² with a covariance."""

    def combined(self, ranks: Sequence[int]) -> Ranks:
        """Its ranks, from one for each matrix of `spectra`."""
        return tuple(ranks)

    def ladder(self, shape: Shape, align: int) -> list[Ranks]:
        """All ranks that are multiples of `align` and save MACs, from the fewest on."""
        (most,) = self.most(shape)
        step = self.step(align)
        steps = [(r,) for r in range(step, most, step)]
        return [ranks for ranks in steps if self.saves(shape, ranks)]

    def aligned(self, shape: Shape, ranks: Ranks, align: int) -> Ranks:
        """Up to the next multiple; never above the most."""
        step = self.step(align)
        return tuple(
            min(top, -(-max(1, r) // step) * step)
            for r, top in zip(ranks, self.most(shape), strict=True)
        )

    def step(self, align: int) -> int:
        """What ranks are multiples of."""
        return align

    def macs(self, shape: Shape, ranks: Ranks) -> int:
        return sum(part.macs for part in self.parts(shape, ranks))

    def saves(self, shape: Shape, ranks: Ranks) -> bool:
        return self.macs(shape, ranks) < shape.macs


def rank_of(values: np.ndarray, energy: float) -> int:
    """The fewest singular values that hold that share of Σ σ²; at least 1."""
    held = np.cumsum(values**2)
    return int(np.searchsorted(held, energy * held[-1] * (1 - 1e-12)) + 1) if held[-1] > 0 else 1


def composed(factors: Sequence[np.ndarray], groups: Sequence[int]) -> np.ndarray:
    """The one weight (out, in, kh, kw) that a row of factors amounts to.

    Along each axis only one of them is wider than 1, so that kernels are placed, never added.
    """
    whole: np.ndarray | None = None
    for weight, count in zip(factors, groups, strict=True):
        full = ungrouped(weight, count)
        if whole is None:
            whole = full
            continue
        joined = np.einsum("omab,micd->oiacbd", full, whole, optimize=True)
        o, i, a, c, b, d = joined.shape
        whole = joined.reshape(o, i, a * c, b * d)
    assert whole is not None
    return whole


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """A grouped convolution's weight with its zeros."""
    if groups == 1:
        return weight
    out, per, height, width = weight.shape
    full = np.zeros((out, per * groups, height, width), weight.dtype)
    for o in range(out):
        first = o // (out // groups) * per
        full[o, first : first + per] = weight[o]
    return full


def error(weight: np.ndarray, other: np.ndarray, covariance: np.ndarray | None = None) -> float:
    """‖W − Ŵ‖² / ‖W‖², or E‖(W − Ŵ) x‖² / E‖W x‖² with E[x xᵀ]."""

    def energy(w: np.ndarray) -> float:
        rows = w.reshape(len(w), -1)
        return float(((rows @ covariance if covariance is not None else rows) * rows).sum())

    whole = energy(weight)
    return max(0.0, energy(weight - other)) / whole if whole > 0 else 0.0


def regressed(weight: np.ndarray, features: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """A of the smallest E‖W x − A F x‖²: the last factor, given those before it as one matrix F."""
    rows = weight.reshape(len(weight), -1)
    read = features @ covariance
    return np.asarray(
        np.linalg.lstsq(read @ features.T, read @ rows.T, rcond=1e-10)[0].T, np.float64
    )


def balanced(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same product with equal norms on both sides of every inner channel: it trains best so.

    first: (rank, ...), last: (out, rank, ...)
    """
    rank = len(first)
    into = np.linalg.norm(first.reshape(rank, -1), axis=1)
    out = np.linalg.norm(np.moveaxis(last, 1, 0).reshape(rank, -1), axis=1)
    known = (into > 0) & (out > 0)
    scale = np.where(known, np.sqrt(out / np.where(into > 0, into, 1.0)), 1.0)
    scale[~known] = 1.0
    first = first * scale.reshape(-1, *[1] * (first.ndim - 1))
    last = last / scale.reshape(1, -1, *[1] * (last.ndim - 2))
    return first, last


def shape_of(layer: Any, size: Pair = (1, 1), result: Pair = (1, 1)) -> Shape:
    """The shape of an nn.Conv2d or nn.Linear."""
    from torch import nn

    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        channels = (layer.in_features, layer.out_features)
        return Shape("dense", channels, bias=bias, size=size, result=result)
    padding = layer.padding if isinstance(layer.padding, str) else _pair(layer.padding)
    return Shape(
        "conv", (layer.in_channels, layer.out_channels), _pair(layer.kernel_size),
        _pair(layer.stride), padding, _pair(layer.dilation), layer.padding_mode, layer.groups,
        bias, size, result,
    )  # fmt: skip


def _pair(values: Any) -> Pair:
    return int(values[0]), int(values[1])


def built(parts: Sequence[Shape], like: Any) -> nn.Sequential:
    """The parts as torch layers with weights as torch makes them; dtype and device of `like`."""
    from torch import nn

    kind = {"dtype": like.weight.dtype, "device": like.weight.device}
    layers: list[nn.Module] = []
    for part in parts:
        if part.kind == "dense":
            layers.append(nn.Linear(*part.channels, bias=part.bias, **kind))
            continue
        mode: Any = part.mode
        layers.append(nn.Conv2d(
            *part.channels, part.kernel, part.stride, part.padding, part.dilation, part.groups,
            part.bias, mode, **kind,
        ))  # fmt: skip
    return nn.Sequential(*layers)


def pointwise_first(shape: Shape, rank: int) -> Shape:
    """A 1x1 part that reads the layer's input as it is."""
    return Shape(shape.kind, (shape.channels[0], rank), size=shape.size, result=shape.size)


def pointwise_last(shape: Shape, rank: int) -> Shape:
    """A 1x1 part that gives the layer's output."""
    channels = (rank, shape.channels[1])
    return Shape(shape.kind, channels, bias=shape.bias, size=shape.result, result=shape.result)


def core(shape: Shape, channels: Pair, groups: int = 1, bias: bool = False) -> Shape:
    """The layer itself between fewer channels."""
    return replace(shape, channels=channels, groups=groups, bias=bias)
