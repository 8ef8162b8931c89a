"""The rank of Y = B A + noise that empirical variational Bayes finds, in closed form.

Nakajima et al., "Global Analytic Solution of Fully-observed Variational Bayesian Matrix
Factorization", JMLR 2013. For Y of L x M, L ≤ M, α = L / M, kept are the singular values γ_h with

    γ_h² > M σ² (1 + τ̄)(1 + α / τ̄),   τ̄ ≈ 2.5129 √α

and the noise's variance σ², where nobody tells it, minimises their free energy, with x_h = γ_h² /
(M σ²), x̄ = (1 + τ̄)(1 + α / τ̄) and τ(x) = ½ (x − (1 + α) + √((x − (1 + α))² − 4 α)):

    Σ_{x_h ≤ x̄} (x_h − log x_h) + Σ_{x_h > x̄} (x_h − τ + log((τ + 1) / x_h) + α log(τ / α + 1))

Pitfall: trained weights are no low-rank matrix with white noise on it: on small layers the rank
comes out far too low, and fine-tuning has to make up for it.
"""

from __future__ import annotations

import numpy as np

STEPS = 400  # of σ, tried on a logarithmic grid, then refined


def rank(values: np.ndarray, size: tuple[int, int], variance: float | None = None) -> int:
    """How many singular values are more than noise; at least 1.

    values: all of them, from the largest; size: the matrix's; variance: of the noise, if known
    """
    length, width = min(size), max(size)
    alpha = length / width
    edge = _edge(alpha)
    squares = np.asarray(values, np.float64)[:length] ** 2
    if not squares.any():
        return 1
    noise = noise_variance(squares, length, width) if variance is None else variance
    return max(1, int((squares > width * noise * edge).sum()))


def noise_variance(squares: np.ndarray, length: int, width: int) -> float:
    """σ² of the smallest free energy, between the bounds that Nakajima et al. give for it."""
    alpha = length / width
    edge = _edge(alpha)
    most = int(min(np.ceil(length / (1 + alpha)) - 1, len(squares))) - 1
    rest = squares[min(max(most, 0) + 1, len(squares) - 1) :]
    high = float(squares.sum()) / (length * width)
    low = max(float(rest[0]) / (width * edge), float(rest.mean()) / width, 1e-12 * high)
    low = min(low, high)
    for _ in range(2):
        tries = np.geomspace(low, high, STEPS)
        energies = [_free_energy(v, squares, length, width, edge) for v in tries]
        best = int(np.argmin(energies))
        low, high = tries[max(0, best - 1)], tries[min(STEPS - 1, best + 1)]
    return float(tries[best])


def _free_energy(
    variance: float, squares: np.ndarray, length: int, width: int, edge: float
) -> float:
    """Up to a constant. Values at zero count as the smallest number."""
    alpha = length / width
    x = np.maximum(squares / (width * variance), 1e-300)
    noise, signal = x[x <= edge], x[x > edge]
    shifted = signal - (1 + alpha)
    tau = 0.5 * (shifted + np.sqrt(np.maximum(shifted**2 - 4 * alpha, 0.0)))
    kept = signal - tau + np.log((tau + 1) / signal) + alpha * np.log(tau / alpha + 1)
    lacking = (length - len(squares)) * np.log(variance)
    return float((noise - np.log(noise)).sum() + kept.sum() + lacking)


def _edge(alpha: float) -> float:
    tau = 2.5129 * np.sqrt(alpha)
    return float((1 + tau) * (1 + alpha / tau))
