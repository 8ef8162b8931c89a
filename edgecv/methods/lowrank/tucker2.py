"""W[o,i] ≈ Σ_pq U[o,q] G[q,p] V[p,i]: 1x1 (in → r_in), k x k (r_in → r_out), 1x1 (r_out → out).

Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications", ICLR 2016: Tucker decomposition along the two channel modes, here by higher-order
orthogonal iteration. On data, given V, the core and the last part are a reduced-rank regression,
whose optimum is in closed form: with z = V x, M = W C_xz C_zz⁻¹, U the first eigenvectors of
M C_zz Mᵀ and G = Uᵀ M. V is the better of the plain one and of that whitened by the inputs.

A rank as wide as the layer leaves that 1x1 out (Tucker-1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecv.methods.lowrank import svd
from edgecv.methods.lowrank.form import (
    Form,
    Pair,
    Ranks,
    Shape,
    composed,
    core,
    error,
    pointwise_first,
    pointwise_last,
    regressed,
)

SWEEPS = 5  # of orthogonal iteration; it hardly moves after two


class Tucker2(Form):
    """ranks: (r_in, r_out)."""

    name = "tucker2"

    def most(self, shape: Shape) -> Ranks:
        return shape.channels

    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        into, out = ranks
        first = (pointwise_first(shape, into),) if into < shape.channels[0] else ()
        last = (pointwise_last(shape, out),) if out < shape.channels[1] else ()
        middle = core(shape, (into, out))
        return *first, middle if last else replace(middle, bias=shape.bias), *last

    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        inputs, outputs = _unfolded(weight), svd.matrix(weight)
        root = None if covariance is None else _root(_of_channels(covariance, weight))
        read = inputs if root is None else root @ inputs
        return [
            (np.linalg.svd(read, compute_uv=False), inputs.shape),
            (svd.output_spectrum(weight, covariance), outputs.shape),
        ]

    def ladder(self, shape: Shape, align: int) -> list[Ranks]:
        """Both ranks are the same share of the layer's channels."""
        widest = max(shape.channels)
        steps = []
        for top in range(align, widest + align, align):
            wanted = tuple(round(c * top / widest / align) * align for c in shape.channels)
            steps.append(self.aligned(shape, wanted, align))
        found = dict.fromkeys(r for r in steps if self.saves(shape, r))
        return sorted(found, key=lambda ranks: self.macs(shape, ranks))

    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        into, out = ranks
        first, middle, last = _iterated(weight, into, out)
        found = [first, middle, last]
        if covariance is not None:
            tries = [_regressed(weight, v, out, covariance)
                     for v in (first[..., 0, 0], _whitened(weight, into, covariance))]  # fmt: skip
            found = min(tries, key=lambda f: error(weight, composed(f, (1, 1, 1)), covariance))
        return _merged(found, weight)


def _merged(factors: list[np.ndarray], weight: np.ndarray) -> list[np.ndarray]:
    """Without the 1x1 parts that would narrow nothing."""
    first, middle, last = factors
    out, into = weight.shape[:2]
    if len(first) == into:
        middle = np.einsum("qpyx,pi->qiyx", middle, first[..., 0, 0])
    if last.shape[1] == out:
        middle = np.einsum("oq,qpyx->opyx", last[..., 0, 0], middle)
    kept = [first] if len(first) < into else []
    return [*kept, middle, *([last] if last.shape[1] < out else [])]


def _iterated(w: np.ndarray, into: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orthonormal V (r_in, in, 1, 1) and U (out, r_out, 1, 1), and G between them."""
    u = svd.outputs(w, out)
    v = _strongest(_unfolded(w), into)
    for _ in range(SWEEPS):
        u = svd.outputs(np.einsum("oiyx,ip->opyx", w, v), out)
        v = _strongest(_unfolded(np.einsum("oiyx,oq->qiyx", w, u)), into)
    middle = np.einsum("oiyx,oq,ip->qpyx", w, u, v, optimize=True)
    return v.T[..., None, None], middle, u[..., None, None]


def _regressed(w: np.ndarray, v: np.ndarray, out: int, covariance: np.ndarray) -> list[np.ndarray]:
    """The best G and U, given V (r_in, in)."""
    height, width = w.shape[2:]
    features = np.kron(v, np.eye(height * width))
    best = regressed(w, features, covariance)
    u = svd.outputs(best, out, features @ covariance @ features.T)
    middle = (u.T @ best).reshape(out, len(v), height, width)
    return [v[..., None, None], middle, u[..., None, None]]


def _whitened(w: np.ndarray, into: int, covariance: np.ndarray) -> np.ndarray:
    """V (r_in, in): directions of the inputs by what they give the outputs, data counted."""
    values, vectors = np.linalg.eigh(_of_channels(covariance, w))
    values = np.maximum(values, 1e-9 * max(values[-1], 1e-30))
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    found = _strongest(root @ _unfolded(w), into).T @ inverse
    return np.asarray(np.linalg.qr(found.T)[0].T)


def _of_channels(covariance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(in, in): the mean over the kernel's places."""
    inner, places = weight.shape[1], weight.shape[2] * weight.shape[3]
    whole = covariance.reshape(inner, places, inner, places)
    return np.einsum("ipjp->ij", whole) / places


def _root(c: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((c + c.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _unfolded(w: np.ndarray) -> np.ndarray:
    """(in, out · kh · kw)."""
    return w.transpose(1, 0, 2, 3).reshape(w.shape[1], -1)


def _strongest(rows: np.ndarray, rank: int) -> np.ndarray:
    """(rows, rank): the first left singular vectors."""
    return np.asarray(np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank])
