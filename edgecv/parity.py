"""Comparing a step's outputs with the step before: cosine, largest error, SQNR, top-1 agreement.

SQNR = 10 log10(Σ ref² / Σ (ref - out)²) decibel. 6 dB are one bit; a float export keeps over 80 dB,
int8 some 15-40 dB. Agreement is the share of samples whose best class is the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecv.errors import ParityError


@dataclass(frozen=True)
class Parity:
    """How two (N, classes) arrays of logits compare."""

    cosine: float
    max_abs_error: float
    sqnr_db: float
    top1_agreement: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Tolerance:
    """What a step may change. Both must hold."""

    min_sqnr_db: float
    min_agreement: float


EXPORT = Tolerance(min_sqnr_db=50.0, min_agreement=0.98)
# A sign turns where a sum lies within a rounding of its border, and all behind it changes a little.
EXPORT_ONE_BIT = Tolerance(min_sqnr_db=20.0, min_agreement=0.95)
COMPILE_FP32 = Tolerance(min_sqnr_db=50.0, min_agreement=0.98)
# The same integers, rounded by another engine's kernels.
COMPILE_INT8 = Tolerance(min_sqnr_db=15.0, min_agreement=0.9)
COMPILE = {
    "fp32": COMPILE_FP32,
    "fp16": Tolerance(min_sqnr_db=35.0, min_agreement=0.98),
    "bf16": Tolerance(min_sqnr_db=20.0, min_agreement=0.95),
    "int8": COMPILE_INT8,
}


def compare(reference: np.ndarray, outputs: np.ndarray) -> Parity:
    """Compare logits. Arrays of equal shape (N, classes), float."""
    ref, out = reference.astype(np.float64), outputs.astype(np.float64)
    error = ref - out
    noise, signal = float((error**2).sum()), float((ref**2).sum())
    sqnr = 200.0 if noise == 0 else 10 * np.log10(max(signal, 1e-30) / noise)
    norms = float(np.linalg.norm(ref) * np.linalg.norm(out))
    return Parity(
        cosine=float((ref * out).sum()) / norms if norms else 0.0,
        max_abs_error=float(np.abs(error).max(initial=0.0)),
        sqnr_db=float(min(sqnr, 200.0)),
        top1_agreement=float((ref.argmax(1) == out.argmax(1)).mean()),
        samples=len(ref),
    )


def check(where: str, reference: np.ndarray, outputs: np.ndarray, tolerance: Tolerance) -> Parity:
    """Compare, and raise ParityError naming the step when it changed more than it may."""
    for name, values in (("outputs before it", reference), ("outputs", outputs)):
        if not np.isfinite(values).all():
            hint = "check the weights and the calibration"
            raise ParityError(where, f"{name} hold NaN or Inf", hint)
    parity = compare(reference, outputs)
    require(where, parity, tolerance)
    return parity


def require(where: str, parity: Parity, tolerance: Tolerance) -> None:
    """Raise ParityError naming the step when it changed more than it may."""
    if parity.sqnr_db < tolerance.min_sqnr_db or (
        parity.top1_agreement < tolerance.min_agreement
        and parity.sqnr_db < tolerance.min_sqnr_db + 20
    ):
        raise ParityError(
            where,
            f"SQNR {parity.sqnr_db:.1f} dB and top-1 agreement {parity.top1_agreement:.3f} on "
            f"{parity.samples} samples, against at least {tolerance.min_sqnr_db:.0f} dB and "
            f"{tolerance.min_agreement:.2f}",
            "this step broke the network: inspect it before shipping",
        )
