"""How values are walked: loops, one in another, with a step of every operand in each.

    place = start + Σ i_d step_d,  0 <= i_d < n_d

A slice, a transpose, a broadcast, a reshape are such walks over memory that stays as it is, so one
kernel of an operator reads them all. `nest` finds the loops behind lists of places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

LOOPS = 6  # as in strided.c
OPERANDS = 4


class Nest(NamedTuple):
    """lengths: of the loops, outermost first; starts, steps: of each operand (step by loop)."""

    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]

    def places(self, operand: int) -> np.ndarray:
        """Where an operand is read or written, in the order of the loops."""
        at = np.array([self.starts[operand]])
        for n, step in zip(self.lengths, self.steps[operand], strict=True):
            at = (at[:, None] + step * np.arange(n)).reshape(-1)
        return at


def nest(places: Sequence[np.ndarray], by: int | None = None) -> Nest | None:
    """The loops that visit all operands together; None where no few loops do.

    places: of each operand (N,), int64, all in one order
    by:     the operand that is to be walked from its lowest place to its highest
    """
    factors = [_factors(p) for p in places]
    if any(f is None for f in factors):
        return None
    ends = sorted({e for f in factors for e in _ends(f or [])})
    if any(b % a for a, b in pairwise(ends)):
        return None
    lengths = [b // a for a, b in pairwise([1, *ends])]
    table = [_refined(f or [], lengths) for f in factors]
    loops = list(zip(lengths, zip(*table, strict=True), strict=True)) if lengths else []
    loops = loops[::-1]
    if by is not None:
        loops.sort(key=lambda loop: -abs(loop[1][by]))
    loops = _merged(loops)
    if len(loops) > LOOPS:
        return None
    return Nest(
        tuple(n for n, _ in loops),
        tuple(int(p[0]) for p in places),
        tuple(tuple(steps[k] for _, steps in loops) for k in range(len(places))),
    )


def _factors(at: np.ndarray) -> list[tuple[int, int]] | None:
    """(length, step) of the loops behind one operand, innermost first."""
    found = []
    while at.size > 1:
        step = int(at[1] - at[0])
        breaks = np.flatnonzero(np.diff(at) != step)
        n = math.gcd(int(breaks[0]) + 1, at.size) if breaks.size else at.size
        rows = at.reshape(-1, n)
        if n == 1 or (rows != rows[:, :1] + step * np.arange(n)).any():
            return None
        found.append((n, step))
        at = rows[:, 0]
    return found


def _ends(factors: list[tuple[int, int]]) -> list[int]:
    return np.cumprod([n for n, _ in factors], dtype=np.int64).tolist()


def _refined(factors: list[tuple[int, int]], lengths: list[int]) -> list[int]:
    """The steps of one operand in loops that are as long as `lengths`, innermost first."""
    steps, left = [], list(factors)
    for n in lengths:
        whole, step = left[0]
        steps.append(step)
        left[0] = (whole // n, step * n)
        if left[0][0] == 1:
            left.pop(0)
    return steps


def _merged(loops: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Two loops that every operand walks as one, as one."""
    found: list[tuple[int, tuple[int, ...]]] = []
    for n, steps in loops:
        if found and found[-1][1] == tuple(n * s for s in steps):
            found[-1] = (found[-1][0] * n, steps)
        else:
            found.append((n, steps))
    return found
