"""y = M x + b, M of few parameters: circulant (n), or Toeplitz-like of displacement rank r (2 r n).

    circulant       M[i, j] = g[(i − j) mod n]
    Toeplitz-like   M = ½ Σ_{j ≤ r} Z₁(g_j) Z₋₁(h_j)

Z₁(g) is the circulant matrix with first column g, Z₋₁(h) the skew-circulant one (what wraps around
changes its sign). Sindhwani et al., "Structured Transforms for Small-Footprint Deep Learning",
NeurIPS 2015: Krylov form; such matrices are those whose displacement Z₁ M − M Z₋₁ has rank r:
Toeplitz matrices and their inverses at r = 2, every matrix at r = n. Circulant: Cheng et al., "An
Exploration of Parameter Redundancy in Deep Networks with Circulant Projections", ICCV 2015.

A product with each is a convolution, by FFT in O(r n log n). A layer that is not square lies in
the corner of a square one: inputs are padded with zeros, outputs cut.

Pitfall: engines have no FFT. Exported, the matrix is written out (`materialised`): a plain dense
layer, that takes a dense layer's time and memory. What it saves are bytes on disk, of the Model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

STRUCTURES = ("circulant", "toeplitz")


class Structured(nn.Module):
    """float (..., in) -> (..., out)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.side = max(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def product(self, x: Tensor) -> Tensor:
        """M x for x (..., side), by FFT."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, self.side - self.in_features))
        y = self.product(padded)[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def matrix(self) -> Tensor:
        """(out, in): the same M, written out."""
        rows = torch.eye(self.in_features, self.side, dtype=next(self.parameters()).dtype)
        return self.product(rows)[:, : self.out_features].T


class Circulant(Structured):
    """Parameter g (side)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.g = nn.Parameter(torch.randn(self.side) / self.side**0.5)

    def product(self, x: Tensor) -> Tensor:
        return convolved(self.g, x, 1.0)


class ToeplitzLike(Structured):
    """Parameters g, h (rank, side)."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        # entries of M have variance 1 / side, as a dense layer's have
        scale = 2.0**0.5 / (rank**0.25 * self.side**0.5)
        self.g = nn.Parameter(torch.randn(rank, self.side) * scale)
        self.h = nn.Parameter(torch.randn(rank, self.side) * scale)

    def product(self, x: Tensor) -> Tensor:
        inner = convolved(self.h, x.unsqueeze(-2), -1.0)
        return 0.5 * convolved(self.g, inner, 1.0).sum(-2)


def convolved(kernel: Tensor, x: Tensor, sign: float) -> Tensor:
    """The cyclic convolution along the last axis; with sign -1, what wraps around is subtracted."""
    n = x.shape[-1]
    whole = torch.fft.irfft(torch.fft.rfft(kernel, 2 * n) * torch.fft.rfft(x, 2 * n), 2 * n)
    return whole[..., :n] + sign * whole[..., n:]


def make(structure: str, inputs: int, outputs: int, rank: int, bias: bool = True) -> Structured:
    """A layer with weights drawn at random. rank means nothing to "circulant"."""
    if structure == "circulant":
        return Circulant(inputs, outputs, bias)
    if structure == "toeplitz":
        return ToeplitzLike(inputs, outputs, rank, bias)
    raise ValueError(f"unknown structure {structure!r}")


def like(layer: Any, structure: str, rank: int) -> Structured:
    """In place of an nn.Linear."""
    made = make(structure, layer.in_features, layer.out_features, rank, layer.bias is not None)
    return made.to(layer.weight)


def has_structured(module: nn.Module) -> bool:
    return any(isinstance(part, Structured) for part in module.modules())


def materialised(module: nn.Module) -> nn.Module:
    """A copy with dense layers for structured ones; the network itself where it has none."""
    if not has_structured(module):
        return module
    made = copy.deepcopy(module)
    for name, part in list(made.named_modules()):
        if isinstance(part, Structured):
            _put(made, name, _dense(part))
    return made.train(module.training)


def _dense(part: Structured) -> nn.Linear:
    weight = part.matrix().detach()
    made = nn.Linear(part.in_features, part.out_features, part.bias is not None)
    made = made.to(weight)
    made.weight.data.copy_(weight)
    if part.bias is not None:
        made.bias.data.copy_(part.bias.data)
    return made


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new)
