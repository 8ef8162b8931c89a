"""W ≈ A B,  B: in → r,  A: r → out: a dense layer or a 1x1 convolution as two.

Truncated SVD (Denton et al., "Exploiting Linear Structure Within Convolutional Networks",
NeurIPS 2014). On data, E‖(W − A B) x‖² is least for A = U, B = Uᵀ W with U the r first eigenvectors
of E[y yᵀ] = W C Wᵀ, y = W x (Zhang et al., "Accelerating Very Deep Convolutional Networks", TPAMI
2016): C is never inverted, so that inputs that are always zero do no harm.

Pitfall: it saves MACs only below r = in · out / (in + out).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecv.methods.lowrank.form import Form, Pair, Ranks, Shape, balanced, pointwise_last


class Svd(Form):
    """ranks: (r,)."""

    name = "svd"

    def most(self, shape: Shape) -> Ranks:
        return (min(shape.channels),)

    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        (rank,) = ranks
        first = replace(shape, channels=(shape.channels[0], rank), bias=False)
        return first, pointwise_last(shape, rank)

    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        return [(output_spectrum(weight, covariance), matrix(weight).shape)]

    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        (rank,) = ranks
        rows = matrix(weight)
        u = outputs(weight, rank, covariance)
        first, last = balanced(u.T @ rows, u)
        return [first.reshape(rank, -1, 1, 1), last.reshape(-1, rank, 1, 1)]


def matrix(weight: np.ndarray) -> np.ndarray:
    """(out, everything else)."""
    return weight.reshape(len(weight), -1)


def outputs(weight: np.ndarray, rank: int, covariance: np.ndarray | None = None) -> np.ndarray:
    """(out, rank): orthonormal directions of the outputs, the strongest first."""
    rows = matrix(weight)
    gram = rows @ (rows.T if covariance is None else covariance @ rows.T)
    return np.asarray(np.linalg.eigh((gram + gram.T) / 2)[1][:, ::-1][:, :rank])


def output_spectrum(weight: np.ndarray, covariance: np.ndarray | None = None) -> np.ndarray:
    """Singular values of W, or of W C^½."""
    rows = matrix(weight)
    if covariance is None:
        return np.asarray(np.linalg.svd(rows, compute_uv=False))
    gram = rows @ covariance @ rows.T
    values = np.linalg.eigvalsh((gram + gram.T) / 2)[::-1]
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[: min(rows.shape)])
