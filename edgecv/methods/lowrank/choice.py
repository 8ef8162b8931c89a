"""min Σ_l −log(1 − e_l)  so that  Σ_l t_l ≤ share · Σ_l t_l(whole)  on every target.

e_l is the share of a layer's output energy that its factors lose on data, t_l their measured time;
"as it is" is an option of every layer. The product of what energies are kept goes with accuracy
(Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection",
TPAMI 2016), so its logarithm is what is given up least of. An integer program finds the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from edgecv.measuring.jobs import Times
from edgecv.methods.lowrank.form import Ranks

WORST = 0.999


@dataclass(frozen=True)
class Option:
    """Ranks for a layer and the energy that they lose; None: the layer as it is, which is first."""

    ranks: Ranks | None = None
    error: float = 0.0


def at_most(times: Mapping[str, Times], option: int) -> float | None:
    """The geometric mean over targets of what an option takes of the layer's time, at the most.

    At the most: the upper ends of 95% intervals. None where no target could tell.
    """
    logs = [log(t.highs[option]) for t in times.values() if t.highs]
    return exp(sum(logs) / len(logs)) if logs else None


def choose(
    options: Mapping[str, Sequence[Option]],
    times: Mapping[str, Mapping[str, Times]],
    others: Mapping[str, float],
    share: float,
) -> dict[str, int] | None:
    """Which option of every layer; None where nothing is fast enough.

    times:  target -> layer -> what its options take, measured
    others: target -> milliseconds of the layers that have no options
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    places = [(name, i) for name, own in options.items() for i in range(len(own))]
    costs = np.array([-log(1.0 - min(WORST, options[n][i].error)) for n, i in places])
    rows, limits = [], []
    for target, own in times.items():
        row = [own[n].ms * own[n].ratios[i] for n, i in places]
        whole = sum(own[n].ms for n in options) + others[target]
        rows.append(row)
        limits.append(share * whole - others[target])
    one = np.array([[float(n == name) for n, _ in places] for name in options])
    found = milp(
        costs,
        constraints=[
            LinearConstraint(np.array(rows), -np.inf, np.array(limits)),
            LinearConstraint(one, 1.0, 1.0),
        ],
        integrality=np.ones(len(places)),
        bounds=Bounds(0, 1),
    )
    if not found.success:
        return None
    return {n: i for (n, i), x in zip(places, found.x, strict=True) if x > 0.5}


def fastest(
    options: Mapping[str, Sequence[Option]], times: Mapping[str, Mapping[str, Times]],
    others: Mapping[str, float],
) -> float:  # fmt: skip
    """The smallest share of the time that could be asked for, on the target where it is largest."""
    shares = []
    for target, own in times.items():
        whole = sum(own[n].ms for n in options) + others[target]
        least = sum(own[n].ms * min(own[n].ratios) for n in options) + others[target]
        shares.append(least / whole)
    return max(shares)
