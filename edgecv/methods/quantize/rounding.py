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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgecv.methods.quantize.adaround import adaround
from edgecv.methods.quantize.options import Rounding

PLACES, FEWEST = 64, 16  # of one image's output map; all of them where it is smaller
SAMPLES = 4096  # columns of all images together that say enough
SAMPLES_PER_WEIGHT = 8
DAMP = 0.01  # λ, as a share of H's mean diagonal
SWEEPS = 10
LAZY = 64  # weights whose errors the rest makes up for at once
WIDE, HELD, BLOCK = 256, 16, 96  # inputs of a wide layer; images kept, and rows added at a time
CACHED = 1 << 16  # numbers of many groups' columns that are looked at at once
SHRINKS = np.linspace(0.35, 1, 27)
GOLDEN = (5**0.5 - 1) / 2


def places_of(inputs: int, images: int) -> int:
    """How many places of each image are looked at for a layer that multiplies so many inputs.

    Between FEWEST and PLACES: SAMPLES of all images together, more where H wants more of them.
    """
    wanted = max(SAMPLES, SAMPLES_PER_WEIGHT * inputs)
    return min(PLACES, max(FEWEST, -(-wanted // max(images, 1))))


def spread(total: int, most: int, wide: int = 0) -> np.ndarray:
    """At most so many of a map's places 0..total - 1, in order: (count,) int.

    wide: of its rows; 0: not known, it is taken for a square. As many rows as columns of a lattice
    that the golden ratio turns: steps of one length meet a map's width, and all lie on its border.
    """
    if total <= most:
        return np.arange(total)
    wide = wide or math.isqrt(total)
    step = np.arange(most)
    rows = ((step + 0.5) * -(-total // wide) / most).astype(int)
    picked = np.unique(rows * wide + ((step + 0.5) * GOLDEN % 1 * wide).astype(int))
    return picked[picked < total]


def columns(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
    most: int = PLACES,
) -> np.ndarray:
    """What a convolution multiplies with its weights: (groups, C / groups * kh * kw, places).

    x: one image's input (C, H, W). pads: top, left, bottom, right. most: of its places (`spread`).
    """
    geometry = (tuple(map(int, one)) for one in (x.shape[1:], kernel, strides, dilations, pads))
    at, inside, places = _places(*geometry, most)
    flat = x.reshape(len(x), -1)
    # Channels last stay last in memory: products of them end in other bits than in the other order.
    seen = flat.take(at, axis=1) if flat.flags.c_contiguous else flat.T.take(at, axis=0).T
    if inside is not None:
        seen *= inside
    return seen.reshape(groups, -1, places)


@lru_cache(maxsize=1024)
def _places(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    most: int,
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Where in a flat image lies what a kernel reads, (kh * kw * places,), 0 outside of it; which
    of them are inside, None where all are; how many places."""
    (height, width), (kh, kw), (dh, dw), (top, left, bottom, right) = size, kernel, dilations, pads
    high = (height + top + bottom - (kh - 1) * dh - 1) // strides[0] + 1
    wide = (width + left + right - (kw - 1) * dw - 1) // strides[1] + 1
    picked = spread(high * wide, most, wide)
    rows = (picked // wide * strides[0] - top) + np.arange(kh)[:, None, None] * dh
    across = (picked % wide * strides[1] - left) + np.arange(kw)[None, :, None] * dw
    inside = ((rows >= 0) & (rows < height) & (across >= 0) & (across < width)).ravel()
    at = np.where(inside, (rows * width + across).ravel(), 0)
    return at, None if inside.all() else inside, len(picked)


class Moments:
    """Sums over the samples of a layer's columns x: of x, and of x xᵀ where they are enough.

    total: (groups, K) float64. count: columns seen.

    Each image's x xᵀ is a product in float32, and their sum is one in float64. Of a wide layer that
    sum is larger than a processor's cache: some images are kept, and their products added to a
    block of its rows at a time. Only the lower triangle is, of a matrix that is symmetric.
    """

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.count = 0
        self._square: np.ndarray | None = None
        self._held: list[np.ndarray] = []

    def add(self, x: np.ndarray, images: int) -> None:
        """x: one image's columns (groups, K, places). images: how many there will be."""
        groups, k, places = x.shape
        if self.total is None:
            self.total = np.zeros((groups, k))
            if places * images >= SAMPLES_PER_WEIGHT * k:
                self._square = np.zeros((groups, k, k))
        self.count += places
        many = groups > 1 or k < WIDE
        step = max(1, CACHED // (k * places)) if many else groups
        for first in range(0, groups, step):
            some = slice(first, first + step)
            self.total[some] += np.einsum("gkp->gk", x[some].astype(np.float64))
            if self._square is not None and many:
                product = x[some] @ x[some].transpose(0, 2, 1)
                np.add(self._square[some], product, out=self._square[some])
        if self._square is not None and not many:
            self._held.append(x[0])
            if len(self._held) == HELD:
                self._add_held()

    def _add_held(self) -> None:
        """The lower triangle of the sum, with the images that were kept."""
        assert self._square is not None
        k = self._square.shape[1]
        for first in range(0, k, BLOCK):
            end = min(first + BLOCK, k)
            rows = self._square[0, first:end, :end]
            product = np.empty(rows.shape, np.float32)
            for x in self._held:
                np.matmul(x[first:end], x[:end].T, out=product)
                np.add(rows, product, out=rows)
        self._held.clear()

    @property
    def square(self) -> np.ndarray | None:
        """(groups, K, K) float64, None where too few columns say what H is."""
        if self._held:
            self._add_held()
        if self._square is not None and self._square.shape[1] >= WIDE and len(self._square) == 1:
            lower = np.tril(self._square[0], -1)
            self._square[0] = np.tril(self._square[0]) + lower.T
        return self._square

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

    What a rounded weight takes from the others it takes at once from those of its block, and from
    the rest with its block: "lazy batch updates", section 4 of the paper.
    """
    k = w.shape[2]
    diagonal = np.einsum("gkk->gk", h).astype(np.float64)
    damp = np.maximum(DAMP * diagonal.mean(1), np.finfo(np.float32).tiny)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # the strongest inputs first
    h = np.take_along_axis(np.take_along_axis(h, order[:, :, None], 1), order[:, None, :], 2)
    rest = np.take_along_axis(w.astype(np.float64), order[:, None, :], 2)
    inverse = np.linalg.inv(h / damp[:, None, None] + np.eye(k))
    u = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    q, errors = np.empty_like(rest), np.empty_like(rest)
    for first in range(0, k, LAZY):
        end = min(first + LAZY, k)
        for i in range(first, end):
            q[:, :, i] = np.clip(np.rint(rest[:, :, i] / s), -limit, limit)
            errors[:, :, i] = (rest[:, :, i] - s * q[:, :, i]) / u[:, None, i, i]
            rest[:, :, i + 1 : end] -= errors[:, :, i, None] * u[:, None, i, i + 1 : end]
        rest[:, :, end:] -= errors[:, :, first:end] @ u[:, first:end, end:]
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
