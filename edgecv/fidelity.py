"""What a step may change of a network's outputs, and saying no where it changed more.

How far outputs are apart is `edgecv.runtime.fidelity`'s to say. 6 dB of SQNR are one bit; a float
export keeps over 80 dB, int8 some 15-40 dB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.errors import NotFiniteError, ParityError
from edgecv.runtime.fidelity import BEST_DB, Parity, compare, compare_all, without_agreement

__all__ = [
    "BEST_DB", "COMPILE", "COMPILE_INT8", "EXPORT", "EXPORT_ONE_BIT", "Parity", "Tolerance",
    "check", "compare", "compare_all", "holds", "require", "without_agreement",
]  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """What a step may change. Both must hold, except where rounding is all that there is.

    rounding: an output of a known range (a sigmoid's) may be off by this share of it, whatever that
    is to its own numbers: on an image of nothing they are 1e-7, which no kernel keeps
    """

    min_sqnr_db: float
    min_agreement: float
    rounding: float = 0.0

    @property
    def min_same(self) -> float:
        """The least share of equal whole numbers: float kernels turn near ties alone."""
        return max(self.min_agreement, 0.999) if self.min_sqnr_db >= 50 else self.min_agreement


KERNEL_ROUNDING = 1e-6  # of float32 kernels that approximate
INT8_ROUNDING = 1 / 512  # half of a step of 8 bits over the whole range

EXPORT = Tolerance(50.0, 0.98, KERNEL_ROUNDING)
# A sign turns where a sum lies within a rounding of its border, and all behind it changes a little.
EXPORT_ONE_BIT = Tolerance(min_sqnr_db=20.0, min_agreement=0.95)
COMPILE_FP32 = Tolerance(50.0, 0.98, KERNEL_ROUNDING)
# The same integers, rounded by another engine's kernels.
COMPILE_INT8 = Tolerance(15.0, 0.9, INT8_ROUNDING)
SEEN_DB = 3.0  # that integers may lose on other images than those they were calibrated on
COMPILE = {
    "fp32": COMPILE_FP32,
    "fp16": Tolerance(35.0, 0.98, 2**-10),
    "bf16": Tolerance(20.0, 0.95, 2**-7),
    "int8": COMPILE_INT8,
}


def check(
    where: str,
    reference: np.ndarray | Sequence[np.ndarray],
    outputs: np.ndarray | Sequence[np.ndarray],
    tolerance: Tolerance,
    kinds: Mapping[str, str | None] | None = None,
    made_up: bool = False,
    bounds: Mapping[str, float] | None = None,
) -> Parity:
    """Compare, and raise ParityError naming the step when it changed more than it may.

    reference, outputs: (N, ...) channels first, or one such array for each output of kinds (name ->
    kind, as `edgecv.runtime.fidelity.kind_of`). made_up: the images were, and so only the distance
    counts. bounds: the largest magnitude of outputs whose operator says one (`Graph.bounds`)
    """
    refs = [reference] if isinstance(reference, np.ndarray) else list(reference)
    outs = [outputs] if isinstance(outputs, np.ndarray) else list(outputs)
    named = kinds or {str(i): None for i in range(len(refs))}
    _check_finite(where, list(named), refs, outs, made_up)
    parity = compare_all(refs, outs, named, tolerance.min_sqnr_db)
    parity = without_agreement(parity) if made_up else parity
    only = next(iter(named))
    require(where, parity, tolerance, {"" if len(named) == 1 and name == only else name: bound
                                       for name, bound in (bounds or {}).items()})  # fmt: skip
    return parity


def _check_finite(
    where: str,
    names: Sequence[str],
    refs: Sequence[np.ndarray],
    outs: Sequence[np.ndarray],
    made_up: bool,
) -> None:
    """Raises NotFiniteError: what the step was given says so already; ParityError: it alone."""
    if told := _not_finite(names, refs):
        seen = "are mean, std and units as in training?"
        seen = "the images are made up: give images of your own" if made_up else seen
        what = f"the network itself answers NaN or infinity: {told}"
        raise NotFiniteError(where, what, f"{seen}; else look for a division by 0")
    if told := _not_finite(names, outs):
        what = f"answers NaN or infinity where what it was made of does not: {told}"
        hint = "fp16 holds no number beyond 65,504; else take another engine or precision"
        raise ParityError(where, what, hint)


def _not_finite(names: Sequence[str], values: Sequence[np.ndarray]) -> str:
    """Which outputs (N, ...) hold what is no number, on how many images; "" where none does."""
    told = []
    for name, rows in zip(names, values, strict=False):
        bad = int((~np.isfinite(rows.reshape(len(rows), -1))).any(1).sum())
        if bad:
            told.append(f"{name!r} on {bad} of {len(rows)} images")
    return ", ".join(told)


def require(
    where: str, parity: Parity, tolerance: Tolerance, bounds: Mapping[str, float] | None = None
) -> None:
    """Raise ParityError naming the step, and the output where there are several, when it changed
    more than it may. bounds: by output, "" where there is one"""
    for name, one in (parity.outputs or {"": parity}).items():
        rounding = tolerance.rounding * (bounds or {}).get(name, 0.0)
        if holds(one, tolerance) or one.max_abs_error <= rounding:
            continue
        agreement = one.clear_agreement
        if one.indices and agreement is not None:
            what = (
                f"{100 * agreement:.2f} % of its whole numbers are equal on {one.samples} images, "
                f"against at least {100 * tolerance.min_same:.1f} %"
            )
            place = f"{where}: output {name!r}" if name else where
            raise ParityError(
                place, what, "this step broke the network: inspect it before shipping"
            )
        agrees = least = ""
        if agreement is not None and agreement < tolerance.min_agreement:
            agrees = f" and top-1 agreement {agreement:.3f} on {one.clear} with a clear best class"
            least = f" and {tolerance.min_agreement:.2f}"
        raise ParityError(
            f"{where}: output {name!r}" if name else where,
            f"SQNR {one.sqnr_db:.1f} dB on {one.samples} images{agrees}, against at least "
            f"{tolerance.min_sqnr_db:.0f} dB{least}",
            "this step broke the network: inspect it before shipping",
        )


def holds(parity: Parity, tolerance: Tolerance) -> bool:
    """Whether every output is within the tolerance. Best classes count where they are clear; of
    whole numbers, how many are equal."""
    return all(
        (one.clear_agreement or 0.0) >= tolerance.min_same
        if one.indices and one.clear
        else one.sqnr_db >= tolerance.min_sqnr_db
        and (one.clear_agreement is None or one.clear_agreement >= tolerance.min_agreement)
        for one in (parity.outputs.values() or (parity,))
    )
