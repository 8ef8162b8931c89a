"""Ranks without a clock: Σ_{i ≤ r} σ_i² ≥ energy · Σ σ_i², EVBMF, a share of the MACs, or a number.

All are multiples of the alignment, upwards: engines run a width in between no faster. A layer for
which no such rank saves MACs stays whole.
"""

from __future__ import annotations

import numpy as np

from edgecv.methods.lowrank import evbmf
from edgecv.methods.lowrank.form import Form, Ranks, Shape, rank_of


def by_energy(
    form: Form, shape: Shape, weight: np.ndarray, covariance: np.ndarray | None,
    energy: float, align: int,
) -> Ranks:  # fmt: skip
    """The fewest that hold that share of the weight's energy, or of its outputs' on data."""
    found = [rank_of(values, energy) for values, _ in form.spectra(weight, covariance)]
    return form.aligned(shape, form.combined(found), align)


def by_noise(form: Form, shape: Shape, weight: np.ndarray, align: int) -> Ranks:
    """What empirical variational Bayes takes for more than noise (`evbmf`)."""
    found = [evbmf.rank(values, size) for values, size in form.spectra(weight)]
    return form.aligned(shape, form.combined(found), align)


def by_macs(form: Form, shape: Shape, share: float, align: int) -> Ranks | None:
    """The most that take at most that share of the layer's MACs; None where none do."""
    fitting = [r for r in form.ladder(shape, align) if form.macs(shape, r) <= share * shape.macs]
    return fitting[-1] if fitting else None


def given(form: Form, shape: Shape, rank: int, align: int) -> Ranks:
    """One number for all, as far as the layer has that many."""
    most = form.most(shape)
    return form.aligned(shape, tuple(min(rank, top) for top in most), align)
