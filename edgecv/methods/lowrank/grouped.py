"""y = A (B_1 x_1, …, B_g x_g): a k x k convolution as one in g groups (in → r), then 1x1 (r → out).

Filter group approximation (Peng et al., "Extreme Network Compression via Filter Group
Approximation", ECCV 2018): the columns of W that read one group of inputs, (out, in/g · k²), have a
rank of their own, found by its SVD. On data A is fitted to all groups at once by least squares.

Pitfall: engines run grouped convolutions well below their MACs' worth; measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

import numpy as np

from edgecv.methods.lowrank import svd
from edgecv.methods.lowrank.form import (
    Form,
    Pair,
    Ranks,
    Shape,
    balanced,
    composed,
    core,
    error,
    pointwise_last,
    regressed,
    ungrouped,
)


class Grouped(Form):
    """ranks: (r,), the channels of all groups together."""

    name = "grouped"

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def most(self, shape: Shape) -> Ranks:
        out, inner, height, width = shape.dims
        return (self.groups * min(out, inner // self.groups * height * width),)

    def parts(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        (rank,) = ranks
        first = core(shape, (shape.channels[0], rank), self.groups)
        return replace(first, bias=False), pointwise_last(shape, rank)

    def step(self, align: int) -> int:
        return lcm(align, self.groups)

    def combined(self, ranks: Sequence[int]) -> Ranks:
        return (self.groups * max(ranks),)

    def spectra(
        self, weight: np.ndarray, covariance: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Pair]]:
        return [
            (svd.output_spectrum(part, block), svd.matrix(part).shape)
            for part, block in self._split(weight, covariance)
        ]

    def factors(
        self, weight: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        (rank,) = ranks
        found = self._by_group(weight, rank // self.groups)
        if covariance is not None:
            own = self._by_group(weight, rank // self.groups, covariance)
            tries = [self._refitted(weight, first, covariance) for first in (found[0], own[0])]
            groups = (self.groups, 1)
            found = min(tries, key=lambda f: error(weight, composed(f, groups), covariance))
        return list(balanced(*found))

    def _by_group(
        self, weight: np.ndarray, rank: int, covariance: np.ndarray | None = None
    ) -> list[np.ndarray]:
        firsts, lasts = [], []
        for part, block in self._split(weight, covariance):
            u = svd.outputs(part, rank, block)
            firsts.append((u.T @ svd.matrix(part)).reshape(-1, *part.shape[1:]))
            lasts.append(u)
        return [np.concatenate(firsts), np.concatenate(lasts, 1)[..., None, None]]

    def _refitted(
        self, weight: np.ndarray, first: np.ndarray, covariance: np.ndarray
    ) -> list[np.ndarray]:
        features = svd.matrix(ungrouped(first, self.groups))
        last = regressed(weight, features, covariance)
        return [first, last[..., None, None]]

    def _split(
        self, weight: np.ndarray, covariance: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The columns of each group, and what its inputs do."""
        parts = np.split(weight, self.groups, 1)
        if covariance is None:
            return [(part, None) for part in parts]
        size = len(covariance) // self.groups
        return [
            (part, covariance[i * size : (i + 1) * size, i * size : (i + 1) * size])
            for i, part in enumerate(parts)
        ]
