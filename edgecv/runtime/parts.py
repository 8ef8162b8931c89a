"""What `verify` says of each output, and of each group of an output that holds several quantities.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from edgecv.runtime.fidelity import Parity, Parts, group, kinds
from edgecv.runtime.goldens import kept_places
from edgecv.runtime.spec import TensorSpec, joined_shape, on_grid, own_axis

# Of the range of a group that has one: what rounding may be, whatever that is to its own numbers.
ROUNDING = {"fp32": 1e-6, "fp16": 2**-10, "bf16": 2**-7, "int8": 1 / 512}


@dataclass(frozen=True)
class Part:
    """The figures of one output, or of one group of its channels.

    sqnr_db:       None where all is equal bit for bit
    max_abs_error: in real units
    axis:          channels first, along which a group lies; None of a whole output
    """

    sqnr_db: float | None
    max_abs_error: float
    axis: int | None = None


class Kept(Parts):
    """Groups of an output of which some values are kept: (N, values), as they lie in the tensor."""

    spec: TensorSpec

    def cut(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """The groups of which a value is kept."""
        shape = joined_shape(self.spec)
        axis = own_axis(self.spec, self.axis) - (len(self.spec.shape) - len(shape))
        at = np.unravel_index(kept_places(prod(shape), values.shape[1]), shape)[axis]
        found = {}
        for a, b in pairwise(self.ends):
            inside = (at >= a) & (at < b)
            if inside.any():
                found[group(name, a, b)] = values[:, inside]
        return found


def kind(spec: TensorSpec, is_whole: bool) -> str | None:
    """What is compared of an output. One of which some values are kept has no whole row."""
    own = kinds([spec])[spec.name]
    if is_whole:
        return own if isinstance(own, Parts) else spec.kind
    if not isinstance(own, Parts):
        return "values"
    kept = Kept(own.axis, own.ends)
    kept.spec = spec
    return kept


def figures(outputs: Sequence[TensorSpec], parity: Parity) -> dict[str, Part | None]:
    """Of each output, or in its place of each of its groups; None of one without a kept value."""
    found: dict[str, Part | None] = {}
    for spec in outputs:
        for name in _names(spec) or (spec.name,):
            one = parity.outputs.get(name) if parity.outputs else parity
            found[name] = None if one is None else _part(one)
    return found


def rounding(outputs: Sequence[TensorSpec], precision: str) -> dict[str, float]:
    """By how much each group may be off, in real units: a share of its range where it has one, a
    step where the output holds integers."""
    share = ROUNDING.get(precision, ROUNDING["int8"])
    found = {}
    for spec in outputs:
        names = _names(spec)
        step = 1.001 * (spec.scale or 0.0) if on_grid(spec) else 0.0
        for name, bound in zip(names, spec.bounds or [0.0] * len(names), strict=True):
            found[name] = max(bound * share, step)
    return found


def _names(spec: TensorSpec) -> list[str]:
    """What its groups are called; none of an output that is one quantity."""
    own = kinds([spec])[spec.name]
    spans: Iterator[tuple[int, int]] = pairwise(own.ends if isinstance(own, Parts) else ())
    return [group(spec.name, a, b) for a, b in spans]


def _part(one: Parity) -> Part:
    exact = one.max_abs_error == 0.0
    return Part(None if exact else one.sqnr_db, one.max_abs_error, one.axis)
