"""The range of an activation, from a histogram of what it held: x ≈ s (q - z), s = (hi - lo) / 255.

A wide range rounds coarsely, a narrow one cuts the largest values off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import numpy as np

BINS = 2048
COUNTED = 1 << 16  # values of one tensor of one image; of larger ones every so-manyth
COUNTED_OF_ALL = 1 << 22  # of all images together
Range = tuple[float, float]
Choose = Callable[[np.ndarray, Range, bool], Range]


class Extremes:
    """Smallest and largest values of tensors, by their place in a row, over images.

    count: of tensors. Whole: of all images; mean: over the images of what each of them holds, which
    a single image's outlier hardly moves
    """

    def __init__(self, count: int) -> None:
        self._low, self._high = np.full(count, np.inf), np.full(count, -np.inf)
        self._sums, self._images = np.zeros((2, count)), 0

    def add(self, low: Sequence[float], high: Sequence[float]) -> None:
        """What the tensors held of one image."""
        # minimum() carries NaN through, so that one bad value is seen at the end
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._sums += low, high
        self._images += 1

    def whole(self) -> list[Range]:
        return list(zip(map(float, self._low), map(float, self._high), strict=True))

    def mean(self) -> list[Range]:
        low, high = self._sums / max(self._images, 1)
        return list(zip(map(float, low), map(float, high), strict=True))


def chosen(
    choose: Choose,
    spans: Mapping[str, Range],
    counts: Iterable[np.ndarray],
    ends: Container[str],
    symmetric: bool,
) -> dict[str, Range]:
    """The range of each tensor by a method.

    spans: its extremes; counts: its histogram, in the order of spans; ends: the network's outputs,
    which keep their extremes: rare large values are its answers, and two classes cut to one value
    cannot be told apart
    """
    return {
        name: span if name in ends else choose(held, span, symmetric)
        for (name, span), held in zip(spans.items(), counts, strict=True)
    }


def histogram(values: np.ndarray, lo: float, hi: float, images: int = 1) -> np.ndarray:
    """Counts in BINS equal bins (np.histogram is ten times slower on equal bins).

    images: how many there will be, of which this is one
    """
    scale = np.float32(BINS / max(hi - lo, 1e-12))
    most = min(COUNTED, max(COUNTED_OF_ALL // images, 1 << 12))
    step = max(1, values.size // most)
    while math.gcd(step, values.size) > 1:  # no row, column or channel is met again and again
        step += 1
    at = values.ravel()[::step] - np.float32(lo)
    at *= scale
    np.clip(at, 0, BINS - 1, out=at)
    return np.bincount(at.astype(np.intp), minlength=BINS)


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
    held = counts > 0
    x, held = ((edges[1:] + edges[:-1]) / 2)[held], counts[held].astype(np.float64)
    shrinks = np.linspace(0.3, 1, 36)
    best, found = np.inf, (lo, hi)
    for low in lo * shrinks if lo < 0 else np.array([lo]):
        highs = -low[None] if symmetric else hi * shrinks
        steps = (np.maximum(highs - low, 1e-12) / (254 if symmetric else 255))[:, None]
        zeros = np.round(-low / steps)  # the grid holds 0 exactly
        q = np.round(x / steps)
        np.clip(q, -zeros, 255 - zeros, out=q)
        q *= steps
        q -= x
        losses = np.square(q, out=q) @ held
        at = int(losses.argmin())
        if losses[at] < best:
            best, found = float(losses[at]), (float(low), float(highs[at]))
    return found


def entropy(counts: np.ndarray, span: Range, symmetric: bool) -> Range:
    """The clipped range whose 8-bit histogram q is closest to p: min KL = Σ p log(p / q).

    Migacz, "8-bit Inference with TensorRT" (GTC 2017). p is the histogram with what lies outside
    piled onto its ends; q is p without the pile, in 256 levels, each spread over its bins that were
    not empty. A value that many places hold (0 behind a ReLU, 6 behind a ReLU6) lies on the grid
    whatever the range, yet spreading it over its level's bins would look like the greatest loss:
    such a bin counts as its neighbour does.
    """
    lo, hi = _mirror(*span) if symmetric else (min(span[0], 0.0), max(span[1], 0.0))
    edges = np.linspace(*span, len(counts) + 1)
    x = (edges[1:] + edges[:-1]) / 2
    even = _without_spikes(counts, int(np.clip(np.searchsorted(edges, 0) - 1, 0, len(x) - 1)))
    best, found = np.inf, (lo, hi)
    for share in np.linspace(1, 0.3, 71):
        low, high = lo * share, hi * share
        inside = (x >= low) & (x <= high)
        if even[inside].any():
            loss = _divergence(counts, even, x, low, high, inside)
            if loss < best:
                best, found = loss, (low, high)
    return found


def _without_spikes(counts: np.ndarray, zero: int) -> np.ndarray:
    """The histogram, with the bins of 0 and of both ends no fuller than their fullest neighbour."""
    even = counts.astype(np.float64)
    for i in {0, zero, zero + 1, len(counts) - 1} & set(range(len(counts))):
        around = [counts[j] for j in (i - 2, i - 1, i + 1, i + 2) if 0 <= j < len(counts)]
        even[i] = min(even[i], sorted(around)[-2])  # the fullest may be a spike's other half
    return even


def _divergence(
    counts: np.ndarray, even: np.ndarray, x: np.ndarray, low: float, high: float, inside: np.ndarray
) -> float:
    held = even[inside]
    p = held.copy()
    p[0] += counts[x < low].sum()
    p[-1] += counts[x > high].sum()
    step = max(high - low, 1e-12) / 255
    level = np.clip(np.rint((x[inside] - low) / step), 0, 255).astype(int)
    full = held > 0
    mass = np.bincount(level, held, minlength=256)
    bins = np.bincount(level, full, minlength=256)
    q = np.where(full, mass[level] / np.maximum(bins[level], 1), 0.0)
    p, q = p / p.sum(), q / q.sum()
    # An end bin that was empty but for the pile is what q cannot say: a small share stands for it.
    q = np.maximum(q, 1e-10)
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def _mirror(lo: float, hi: float) -> Range:
    return -max(-lo, hi), max(-lo, hi)


# None: of extremes alone
CALIBRATIONS: dict[str, Choose | None] = {
    "minmax": None,
    "mean": None,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def opened(span: Range) -> Range:
    """A range of width 0 about 0 (a ReLU6 that never opens) as 0 to 1.

    ONNX Runtime's quantizer gives it scale 1 and zero point 0, and takes the ReLU out in the belief
    that the integers end where it clips: int8 ones do not, and negative values go on.
    """
    return (0.0, 1.0) if max(abs(v) for v in span) < 1e-20 else span
