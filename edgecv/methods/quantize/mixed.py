"""Which layers stay float: an integer program over what each costs and what each wins.

    minimise   Σ_l c_l f_l
    subject to Σ_l w_l f_l + Σ_t a_t y_t ≥ removed,   y_t ≤ f_l for every layer l at tensor t,
               f, y in {0, 1}

f_l: layer l computes in float; c_l: milliseconds that costs (its float time less its int8 time, as
the engine's profiler saw them); w_l: the noise that rounding its weights adds to the network's
outputs; a_t: the noise that rounding tensor t adds, which goes away only where every layer that
makes or reads t is float. Noise powers add up, since rounding errors are hardly correlated.

After HAWQ-V3 (Yao et al., ICML 2021), whose program chooses bits by a Hessian's trace under a
latency; here the noise is measured on images and the time on the engine. Solved by HiGHS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Noise is in units of the outputs' power (0.01 is 20 dB), cost in milliseconds.

    weights:     noise of each layer's rounded weights, by layer
    activations: noise of each rounded tensor, by tensor
    touching:    the layers that make or read each tensor
    cost:        milliseconds that each layer costs in float beyond int8; at least 0
    """

    weights: Mapping[str, float]
    activations: Mapping[str, float]
    touching: Mapping[str, Sequence[str]]
    cost: Mapping[str, float]

    @property
    def noise(self) -> float:
        """With every layer in int8."""
        return sum(self.weights.values()) + sum(self.activations.values())

    def left(self, kept: Sequence[str]) -> float:
        """With those layers in float."""
        floats = set(kept)
        gone = sum(v for k, v in self.weights.items() if k in floats)
        gone += sum(v for t, v in self.activations.items() if floats >= set(self.touching[t]))
        return self.noise - gone


def choose(problem: Problem, noise: float) -> tuple[str, ...] | None:
    """The cheapest layers to keep in float for outputs of at most that noise; None if none do."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers, tensors = list(problem.weights), list(problem.activations)
    place = {name: i for i, name in enumerate(layers)}
    size = len(layers) + len(tensors)
    won = np.array([*problem.weights.values(), *problem.activations.values()])
    rows = []
    for j, tensor in enumerate(tensors):
        for name in problem.touching[tensor]:
            row = np.zeros(size)
            row[len(layers) + j], row[place[name]] = 1.0, -1.0
            rows.append(row)
    needed = problem.noise - noise
    if needed <= 0.0:
        return ()
    constraints = [LinearConstraint(won / problem.noise, needed / problem.noise, np.inf)]
    if rows:
        constraints.append(LinearConstraint(np.array(rows), -np.inf, 0.0))
    # A little for each layer: of two answers of one cost, the one with fewer float layers.
    costs = [problem.cost.get(name, 0.0) for name in layers]
    least = 1e-6 * max(1e-9, *costs)
    objective = np.array([*(c + least for c in costs), *np.zeros(len(tensors))])
    found = milp(
        objective / objective.max(),
        constraints=constraints,
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
    )
    if not found.success:
        return None
    return tuple(name for name, x in zip(layers, found.x, strict=False) if x > 0.5)


def rungs(problem: Problem, gains_db: Sequence[float]) -> list[tuple[str, ...]]:
    """For each gain in SQNR the layers to keep in float, from the cheapest on; duplicates left out.

    A gain that no layers win is left out.
    """
    found: list[tuple[str, ...]] = []
    for gain in gains_db:
        kept = choose(problem, problem.noise * 10.0 ** (-gain / 10.0))
        if kept and kept not in found:
            found.append(kept)
    return found
