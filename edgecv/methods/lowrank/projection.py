"""min ‖(W − M(g, h)) C^½‖²: the structured matrix nearest to a dense layer, C = E[x xᵀ] or 1.

Circulant: g is the mean along the wrapped diagonals (the optimum for C = 1). Toeplitz-like: the
displacement Z₁ W − W Z₋₁ ≈ Σ_j g_j (J h_j)ᵀ by truncated SVD (J turns a vector round) starts a
short fit by L-BFGS; a small displacement error is no small error of W, the fit is what counts.

Pitfall: a trained dense layer is near no such structure, whatever its order of inputs: the fit
keeps little, and fine-tuning does the rest. Trained from scratch they do better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgecv.methods.lowrank.structured import Circulant, Structured, ToeplitzLike, like

STEPS = 40
PROBES = 512  # vectors that stand for C where the layer reads more than so many


def project(
    layer: Any, structure: str, rank: int, covariance: np.ndarray | None = None, seed: int = 0
) -> Structured:
    """A structured layer in place of an nn.Linear, as near to it as the fit gets."""
    made = like(layer, structure, rank)
    _start(made, layer.weight.detach())
    rows = _probes(layer.in_features, covariance, seed).to(layer.weight)
    wanted = rows @ layer.weight.detach().T
    padded = torch.nn.functional.pad(rows, (0, made.side - made.in_features))
    parameters = [p for n, p in made.named_parameters() if n != "bias"]
    search = torch.optim.LBFGS(
        parameters, max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )
    whole = wanted.square().sum().clamp(min=1e-30)

    def loss() -> Tensor:
        search.zero_grad()
        value = (made.product(padded)[:, : made.out_features] - wanted).square().sum() / whole
        value.backward()
        return value

    search.step(loss)
    if made.bias is not None:
        made.bias.data.copy_(layer.bias.detach())
    return made


def _probes(size: int, covariance: np.ndarray | None, seed: int) -> Tensor:
    """(count, size) whose second moments are C: all of them, or PROBES at random."""
    root = torch.eye(size, dtype=torch.float64) if covariance is None else _root(covariance)
    if size <= PROBES:
        return root
    drawn = torch.randn(PROBES, size, generator=torch.Generator().manual_seed(seed)).double()
    return drawn @ root / PROBES**0.5


def displacement(matrix: Tensor) -> Tensor:
    """Z₁ M − M Z₋₁ of a square matrix: rows turn down; columns turn left, the last with −."""
    columns = torch.cat([matrix[:, 1:], -matrix[:, :1]], 1)
    return torch.roll(matrix, 1, 0) - columns


def left(layer: Any, made: Structured, covariance: np.ndarray | None = None) -> float:
    """‖W − M‖² / ‖W‖², or of outputs on data."""
    root = None if covariance is None else _root(covariance)
    weight = layer.weight.detach().double()
    matrix = made.matrix().detach().double()
    return float(_energy(weight - matrix, root) / _energy(weight, root))


def _start(made: Structured, weight: Tensor) -> None:
    square = torch.zeros(made.side, made.side, dtype=weight.dtype)
    square[: weight.shape[0], : weight.shape[1]] = weight
    if isinstance(made, Circulant):
        rows, columns = torch.meshgrid(*[torch.arange(made.side)] * 2, indexing="ij")
        known = torch.zeros_like(square)
        known[: weight.shape[0], : weight.shape[1]] = 1.0
        place = ((rows - columns) % made.side).flatten()
        total = torch.zeros(made.side, dtype=weight.dtype).index_add_(0, place, square.flatten())
        count = torch.zeros(made.side, dtype=weight.dtype).index_add_(0, place, known.flatten())
        made.g.data.copy_(total / count.clamp(min=1.0))
    elif isinstance(made, ToeplitzLike):
        rank = len(made.g)
        u, s, v = torch.linalg.svd(displacement(square))
        made.g.data.copy_((u[:, :rank] * s[:rank].sqrt()).T)
        made.h.data.copy_((v[:rank] * s[:rank].sqrt()[:, None]).flip(1))


def _energy(weight: Tensor, root: Tensor | None) -> Tensor:
    return (weight if root is None else weight @ root).square().sum()


def _root(covariance: np.ndarray) -> Tensor:
    values, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
