"""W[o,i,p] ≈ Σ_r A[o,r] B[i,r] C[p,r]: 1x1 (in → r), depthwise k x k (r), 1x1 (r → out).

Canonical polyadic decomposition (Lebedev et al., "Speeding-up CNNs Using Fine-tuned
CP-Decomposition", ICLR 2015), with the kernel's places p as one mode: fewer and wider parts, and
stabler. Alternating least squares with a penalty, after Phan et al. ("Stable Low-rank Tensor
Decomposition for Compression of Convolutional Neural Network", ECCV 2020):

    ‖W − Σ_r a_r ∘ b_r ∘ c_r‖² + λ (‖A‖² + ‖B‖² + ‖C‖²),   on W / ‖W‖

Pitfall: without a penalty the best approximation may not exist: components grow without bound and
cancel each other, and such a network cannot be fine-tuned. How much cancels is
Σ_r ‖a_r‖² ‖b_r‖² ‖c_r‖² / ‖W‖²; above LIMIT, or with a worse fit than nothing, it has diverged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.errors import StageError
from edgecv.methods.lowrank import svd
from edgecv.methods.lowrank.form import (
    Form,
    Pair,
    Ranks,
    Shape,
    core,
    pointwise_first,
    pointwise_last,
    regressed,
)

SWEEPS = 150
CALM = 1e-7  # a fall of the error, in shares of ‖W‖², at which it has settled
LIMIT = 100.0


class Cp(Form):
    """ranks: (r,). penalty: λ; seed: of the first guess where SVD gives too few directions."""

    name = "cp"

    def __init__(self, penalty: float = 1e-4, seed: int = 0) -> None:
        self.penalty, self.seed = penalty, seed

    def most(self, shape: Shape) -> Ranks:
        """A rank that always suffices: the product of the two smaller modes."""
        out, inner, height, width = shape.dims
        return (_enough((out, inner, height * width)),)

    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        (rank,) = ranks
        middle = core(shape, (rank, rank), rank)
        return pointwise_first(shape, rank), middle, pointwise_last(shape, rank)

    def combined(self, ranks: Sequence[int]) -> Ranks:
        """A CP rank is at least that of every unfolding."""
        return (max(ranks),)

    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        tensor = _tensor(weight)
        unfolded = [np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1) for mode in (0, 1)]
        inputs = np.linalg.svd(unfolded[1], compute_uv=False)
        return [
            (svd.output_spectrum(weight, covariance), unfolded[0].shape),
            (inputs, unfolded[1].shape),
        ]

    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Raises StageError: it diverges."""
        (rank,) = ranks
        out, inner, height, width = weight.shape
        a, b, c = decomposed(_tensor(weight), rank, self.penalty, self.seed)
        if covariance is not None:  # component by component, (r, in · places)
            features = np.einsum("ir,pr->rip", b, c).reshape(rank, -1)
            a = regressed(weight, features, covariance)
        return [
            b.T.reshape(rank, inner, 1, 1),
            c.T.reshape(rank, 1, height, width),
            a.reshape(out, rank, 1, 1),
        ]


def decomposed(
    tensor: np.ndarray, rank: int, penalty: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A, B, C), each (mode, rank), by penalised alternating least squares.

    Raises StageError: it diverges.
    """
    norm = float(np.linalg.norm(tensor))
    if norm == 0.0:
        return tuple(np.zeros((n, rank)) for n in tensor.shape)  # type: ignore[return-value]
    if rank >= _enough(tensor.shape):
        return _exact(tensor, rank)
    unit = tensor / norm
    unfolded = [
        np.ascontiguousarray(np.moveaxis(unit, m, 0).reshape(n, -1))
        for m, n in enumerate(unit.shape)
    ]
    factors = _first_guess(unfolded, rank, seed)
    before = np.inf
    for _ in range(SWEEPS):
        for mode in range(3):
            one, two = (factors[m] for m in range(3) if m != mode)
            gram = (one.T @ one) * (two.T @ two) + penalty * np.eye(rank)
            products = (one[:, None] * two[None]).reshape(-1, rank)
            read = unfolded[mode] @ products
            factors[mode] = np.linalg.lstsq(gram, read.T, rcond=None)[0].T
        factors = _even(factors)
        now = _error(unit, factors) + penalty * sum(float((f**2).sum()) for f in factors)
        if not np.isfinite(now) or before - now < CALM:
            break
        before = now
    check(unit, factors, rank)
    scale = norm ** (1 / 3)
    a, b, c = (f * scale for f in factors)
    return a, b, c


def check(unit: np.ndarray, factors: list[np.ndarray], rank: int) -> None:
    """Raises StageError where components cancel each other, or fit worse than nothing."""
    cancelled = intensity(factors)
    if not np.isfinite(cancelled) or cancelled > LIMIT or _error(unit, factors) > 1.0:
        raise StageError(
            "cp",
            f"rank {rank} diverges: components of {cancelled:.0f} times the weight's energy cancel "
            "each other",
            "raise penalty (0.001), lower the rank, or use tucker2",
        )


def intensity(factors: list[np.ndarray]) -> float:
    """Σ_r ‖a_r‖² ‖b_r‖² ‖c_r‖²: 1 for orthogonal components of a unit tensor."""
    norms = [np.sum(f**2, 0) for f in factors]
    return float(np.sum(norms[0] * norms[1] * norms[2]))


def _first_guess(unfolded: list[np.ndarray], rank: int, seed: int) -> list[np.ndarray]:
    """The first left singular vectors of each unfolding, and noise for the columns beyond.

    A little noise on all of them: exact ones may be a saddle that ALS does not leave.
    """
    rng = np.random.default_rng(seed)
    made = []
    for rows in unfolded:
        size = len(rows)
        guess = rng.normal(size=(size, rank)) / np.sqrt(size)
        u = np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank]
        guess[:, : u.shape[1]] = u + 0.1 * guess[:, : u.shape[1]]
        made.append(guess)
    return made


def _enough(shape: tuple[int, ...]) -> int:
    """A rank at which every tensor of that shape is a sum of components."""
    first, second, _ = sorted(shape)
    return first * second


def _exact(tensor: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A component for every pair of places in the two smaller modes; zeros for what is beyond."""
    long = int(np.argmax(tensor.shape))
    short = [m for m in range(3) if m != long]
    sizes = [tensor.shape[m] for m in short]
    made = [np.zeros((n, rank)) for n in tensor.shape]
    count = sizes[0] * sizes[1]
    made[short[0]][:, :count] = np.kron(np.eye(sizes[0]), np.ones(sizes[1]))
    made[short[1]][:, :count] = np.tile(np.eye(sizes[1]), sizes[0])
    made[long][:, :count] = np.moveaxis(tensor, long, 0).reshape(tensor.shape[long], -1)
    a, b, c = made
    return a, b, c


def _even(factors: list[np.ndarray]) -> list[np.ndarray]:
    """Every component's norm shared out evenly between its three vectors."""
    norms = [np.maximum(np.linalg.norm(f, axis=0), 1e-30) for f in factors]
    even = np.cbrt(norms[0] * norms[1] * norms[2])
    return [f * (even / n) for f, n in zip(factors, norms, strict=True)]


def _error(unit: np.ndarray, factors: list[np.ndarray]) -> float:
    made = np.einsum("ar,br,cr->abc", *factors, optimize=True)
    return float(((unit - made) ** 2).sum())


def _tensor(weight: np.ndarray) -> np.ndarray:
    """(out, in, kh · kw)."""
    return weight.reshape(*weight.shape[:2], -1)
