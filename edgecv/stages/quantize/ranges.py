"""The range of an activation, from a histogram of what it held: x ≈ s (q - z), s = (hi - lo) / 255.

A wide range rounds coarsely, a narrow one cuts the largest values off.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BINS = 2048
Range = tuple[float, float]
Choose = Callable[[np.ndarray, Range, bool], Range]


def histogram(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Counts in BINS equal bins (np.histogram is ten times slower on equal bins)."""
    scale = np.float32(BINS / max(hi - lo, 1e-12))
    index = ((values.ravel() - np.float32(lo)) * scale).astype(np.int32)
    return np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)


def percentile(counts: np.ndarray, span: Range, symmetric: bool, kept: float = 0.9999) -> Range:
    """The range that holds that share of the values, half of the rest cut on each side."""
    lo, hi = span
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(lo, hi, len(counts) + 1)
    cut = (1 - kept) / 2
    first = int(np.searchsorted(share, cut, side="right"))
    last = int(np.searchsorted(share, 1 - cut)) + 1
    low, high = float(edges[first]), float(edges[min(last, len(counts))])
    return _mirror(low, high) if symmetric else (low, high)


def mse(counts: np.ndarray, span: Range, symmetric: bool) -> Range:
    """The shrunk range that minimises E[(x − q(x))²] over 256 levels.

    Nagel et al., "A White Paper on Neural Network Quantization" (2021), section 3.1.
    """
    lo, hi = _mirror(*span) if symmetric else (min(span[0], 0.0), max(span[1], 0.0))
    edges = np.linspace(*span, len(counts) + 1)
    x = (edges[1:] + edges[:-1]) / 2
    shrinks = np.linspace(0.3, 1, 36)
    if symmetric:
        tries = [(lo * a, hi * a) for a in shrinks]
    else:
        tries = [(lo * a, hi * b) for a in (shrinks if lo < 0 else (1.0,)) for b in shrinks]
    best, found = np.inf, (lo, hi)
    for low, high in tries:
        step = max(high - low, 1e-12) / (254 if symmetric else 255)
        zero = np.round(-low / step)  # the grid holds 0 exactly
        q = np.clip(np.round(x / step), -zero, 255 - zero) * step
        loss = float(counts @ (x - q) ** 2)
        if loss < best:
            best, found = loss, (float(low), float(high))
    return found


def _mirror(lo: float, hi: float) -> Range:
    return -max(-lo, hi), max(-lo, hi)


CALIBRATIONS: dict[str, Choose | None] = {"minmax": None, "percentile": percentile, "mse": mse}
