"""W[o,i,y,x] ≈ Σ_r H[o,r,x] V[r,i,y]: a k x k convolution as k x 1 (in → r), then 1 x k (r → out).

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC 2014;
the SVD of the matrix (in · kh, out · kw) is its optimum in closed form (Tai et al., "Convolutional
neural networks with low-rank regularization", ICLR 2016). On data H is fitted by least squares,
given V.

Pitfall: engines' kernels are written for 3 x 3; a 3 x 1 and a 1 x 3 of half the MACs may take as
long. Stride falls along height first, which makes the second part cheaper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecv.methods.lowrank.form import Form, Pair, Ranks, Shape, balanced, regressed


class Spatial(Form):
    """ranks: (r,)."""

    name = "spatial"

    def most(self, shape: Shape) -> Ranks:
        out, inner, height, width = shape.dims
        return (min(inner * height, out * width),)

    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        (rank,), between = ranks, (shape.result[0], shape.size[1])
        source, target = shape.channels
        down = replace(shape.along(0), channels=(source, rank), bias=False, result=between)
        across = replace(shape.along(1), channels=(rank, target), size=between)
        return down, across

    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        del covariance  # its matrix has outputs on both sides
        rows = _matrix(weight)
        return [(np.linalg.svd(rows, compute_uv=False), rows.shape)]

    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        (rank,) = ranks
        out, inner, height, width = weight.shape
        u, s, vt = np.linalg.svd(_matrix(weight), full_matrices=False)
        down = u[:, :rank].T.reshape(rank, inner, height, 1)
        across = (s[:rank, None] * vt[:rank]).reshape(rank, out, 1, width).transpose(1, 0, 2, 3)
        if covariance is not None:
            # F[(r, x), (i, y, x')] = V[r, i, y] where x' is x
            read = np.einsum("riy,xz->rxiyz", down[..., 0], np.eye(width))
            features = read.reshape(rank * width, -1)
            across = regressed(weight, features, covariance).reshape(out, rank, 1, width)
        return list(balanced(down, across))


def _matrix(weight: np.ndarray) -> np.ndarray:
    """(in · kh, out · kw)."""
    out, inner, height, width = weight.shape
    return weight.transpose(1, 2, 0, 3).reshape(inner * height, out * width)
