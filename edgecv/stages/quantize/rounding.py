"""q = argmin (w − s q)ᵀ H (w − s q),  H = E[x xᵀ]: what rounding a layer does to its output.

nearest   q = round(w / s): the least error of the weights, whatever the inputs
gptq      one weight after another, the rest making up for the error of those already rounded:
          w_j ← w_j − (w_k − s q_k) U_kj / U_kk for j > k, U the upper Cholesky factor of
          (H + λI)⁻¹. Frantar et al., "GPTQ" (ICLR 2023), after Hassibi & Stork, "Optimal Brain
          Surgeon" (NeurIPS 1992)
descent   gptq, and then each integer again with all others held, until none moves
adaround  up or down by gradients: `adaround.py`

The pixels below a kernel are much alike, so the first layers and the depthwise ones gain most.

Pitfall: with few samples H is the samples' own, and the rounding gets worse on other images:
a layer with fewer than SAMPLES_PER_WEIGHT columns for each of its inputs is rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.stages.quantize.adaround import adaround
from edgecv.stages.quantize.options import Rounding

PLACES = 64  # of an image's output map, spread evenly; all of them where it is smaller
SAMPLES_PER_WEIGHT = 8
DAMP = 0.01  # λ, as a share of H's mean diagonal
SWEEPS = 10
SHRINKS = np.linspace(0.35, 1, 27)


def columns(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
) -> np.ndarray:
    """What a convolution multiplies with its weights: (groups, C / groups * kh * kw, places).

    x: one image's input (C, H, W). pads: top, left, bottom, right. At most PLACES places.
    """
    (kh, kw), (dh, dw), (top, left, bottom, right) = kernel, dilations, pads
    channels, height, width = x.shape
    high = (height + top + bottom - (kh - 1) * dh - 1) // strides[0] + 1
    wide = (width + left + right - (kw - 1) * dw - 1) // strides[1] + 1
    picked = np.linspace(0, high * wide - 1, min(high * wide, PLACES)).astype(int)
    rows = (picked // wide * strides[0] - top) + np.arange(kh)[:, None, None] * dh
    across = (picked % wide * strides[1] - left) + np.arange(kw)[None, :, None] * dw
    inside = (rows >= 0) & (rows < height) & (across >= 0) & (across < width)
    at = np.where(inside, rows * width + across, 0)  # (kh, kw, places)
    seen = x.reshape(channels, -1)[:, at.reshape(-1)].reshape(channels, *at.shape)
    return np.where(inside, seen, x.dtype.type(0)).reshape(groups, -1, len(picked))


class Moments:
    """Sums over the samples of a layer's columns x: of x, and of x xᵀ where they are enough.

    total: (groups, K) float64. square: (groups, K, K) float64, None where too few columns say
    what H is. count: columns seen.
    """

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.square: np.ndarray | None = None
        self.count = 0

    def add(self, x: np.ndarray, images: int) -> None:
        """x: one image's columns (groups, K, places). images: how many there will be."""
        if self.total is None:
            self.total = np.zeros(x.shape[:2])
            if x.shape[2] * images >= SAMPLES_PER_WEIGHT * x.shape[1]:
                self.square = np.zeros((*x.shape[:2], x.shape[1]))
        self.total += x.sum(2, dtype=np.float64)
        if self.square is not None:
            self.square += (x @ x.transpose(0, 2, 1)).astype(np.float64)
        self.count += x.shape[2]

    @staticmethod
    def none(inputs: int) -> Moments:
        """Of a layer whose inputs were not looked at: rounded to nearest, its bias kept."""
        made = Moments()
        made.total = np.zeros((1, inputs))
        return made

    @property
    def mean(self) -> np.ndarray:
        """E[x], (groups, K)."""
        assert self.total is not None
        return self.total / max(self.count, 1)


@dataclass(frozen=True)
class Rounded:
    """A layer's integers. q: (groups, O, K) float64, whole. s: (groups, O) float64, its scales."""

    q: np.ndarray
    s: np.ndarray


def round_layer(
    w: np.ndarray,
    s: np.ndarray,
    h: np.ndarray | None,
    limit: int,
    how: Rounding,
    search: bool = False,
    shared: bool = False,
) -> Rounded:
    """Integers in -limit..limit and their scales.

    w: (groups, O, K). s: (groups, O), above 0. h: (groups, K, K), of any scale; None rounds to
    nearest. search: shrink each scale to where its row's output error is least (few bits need it;
    8 do not). shared: one scale for all rows.
    """
    w = w.astype(np.float64)
    s = np.asarray(s, np.float64)
    if search:
        s = _best_scale(w, s, h, limit, shared)
    if h is None or how == "nearest":
        return Rounded(_nearest(w, s, limit), s)
    if how == "adaround":
        return Rounded(adaround(w, s, h, limit), s)
    q = round_weights(w, s, h, limit)
    return Rounded(descend(w, s, h, limit, q) if how == "descent" else q, s)


def round_weights(w: np.ndarray, s: np.ndarray, h: np.ndarray, limit: int) -> np.ndarray:
    """GPTQ. Integers q in -limit..limit with a small (w − s q)ᵀ H (w − s q); float64, w's shape.

    w: (groups, O, K). s: (groups, O), above 0. h: (groups, K, K), of any scale.
    """
    k = w.shape[2]
    diagonal = np.einsum("gkk->gk", h).astype(np.float64)
    damp = np.maximum(DAMP * diagonal.mean(1), np.finfo(np.float32).tiny)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # the strongest inputs first
    h = np.take_along_axis(np.take_along_axis(h, order[:, :, None], 1), order[:, None, :], 2)
    rest = np.take_along_axis(w.astype(np.float64), order[:, None, :], 2)
    inverse = np.linalg.inv(h / damp[:, None, None] + np.eye(k))
    u = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    q = np.empty_like(rest)
    for i in range(k):
        q[:, :, i] = np.clip(np.rint(rest[:, :, i] / s), -limit, limit)
        error = (rest[:, :, i] - s * q[:, :, i]) / u[:, None, i, i]
        rest[:, :, i + 1 :] -= error[:, :, None] * u[:, None, i, i + 1 :]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(q, back[:, None, :], 2)


def descend(w: np.ndarray, s: np.ndarray, h: np.ndarray, limit: int, q: np.ndarray) -> np.ndarray:
    """Coordinate descent from q: q_k ← round(q_k + (H e)_k / (s H_kk)), e = w − s q."""
    h = _damped(h)
    diagonal = np.einsum("gkk->gk", h)
    q = q.copy()
    slope = (w - s[:, :, None] * q) @ h  # (groups, O, K)
    for _ in range(SWEEPS):
        moved = 0
        for k in range(w.shape[2]):
            pull = slope[:, :, k] / (s * diagonal[:, None, k])
            step = np.clip(q[:, :, k] + np.rint(pull), -limit, limit) - q[:, :, k]
            # A step of one that gains nothing would go back and forth for ever.
            step[np.abs(pull) <= 0.5 + 1e-9] = 0
            if step.any():
                moved += int(np.count_nonzero(step))
                q[:, :, k] += step
                slope -= (s * step)[:, :, None] * h[:, None, k, :]
        if not moved:
            break
    return q


def output_error(w: np.ndarray, rounded: Rounded, h: np.ndarray) -> float:
    """Σ over rows of (w − s q)ᵀ H (w − s q)."""
    e = w - rounded.s[:, :, None] * rounded.q
    return float(((e @ h) * e).sum())


def _best_scale(
    w: np.ndarray, s: np.ndarray, h: np.ndarray | None, limit: int, shared: bool
) -> np.ndarray:
    """The share of s that leaves each row the least error when rounded to nearest, (groups, O)."""
    best, found = np.full(s.shape, np.inf), s
    for share in SHRINKS:
        t = s * share
        e = w - t[:, :, None] * _nearest(w, t, limit)
        loss = (e * (e if h is None else e @ h)).sum(2)
        if shared:
            loss = np.full_like(loss, loss.sum())
        found = np.where(loss < best, t, found)
        best = np.minimum(best, loss)
    return found


def _nearest(w: np.ndarray, s: np.ndarray, limit: int) -> np.ndarray:
    return np.clip(np.rint(w / s[:, :, None]), -limit, limit)


def _damped(h: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("gkk->gk", h)
    damp = np.maximum(DAMP * diagonal.mean(1), np.finfo(np.float32).tiny)
    return h.astype(np.float64) + damp[:, None, None] * np.eye(h.shape[1])
