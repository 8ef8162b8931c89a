"""How far a rung may be from the one before it, relative to the signal.

preprocessing   the same arithmetic: 40 dB leave room for an 8-bit input's rounding
export          float kernels sum in another order: 50 dB, and 80-140 dB are usual
quantize        fp16 35 dB; int8 10 dB, it keeps 15-40: below ten something else is at work
compile         what the engine runs: fp32 50 dB, fp16 35, bf16 20, int8 15 (other rounding)
runtime         the same engine once more: 60 dB
"""

from __future__ import annotations

from edgecv.fidelity import COMPILE, COMPILE_INT8, EXPORT, Tolerance, holds

__all__ = ["PREPROCESSING", "QUANTIZE", "RUNTIME", "between", "holds"]

PREPROCESSING = Tolerance(min_sqnr_db=40.0, min_agreement=0.0)
QUANTIZE = Tolerance(min_sqnr_db=10.0, min_agreement=0.8)
RUNTIME = Tolerance(min_sqnr_db=60.0, min_agreement=1.0)


def between(before: str, after: str, compiled: bool) -> Tolerance:
    """For a graph of one precision and the form that was made of it."""
    if compiled or after == "fp16":  # weights halved: no closer, and no farther, than that
        return COMPILE.get(after, COMPILE_INT8)
    return EXPORT if before == after == "fp32" else QUANTIZE if before == "fp32" else COMPILE_INT8
