"""Weights rounded so that the layer's output errs least, not the weight itself.

argmin over integers q of E[(w·x − s q·x)²] = (w − s q)ᵀ H (w − s q),  H = E[x xᵀ]

one weight after another, the rest making up for the error of those already rounded:
w_j ← w_j − (w_k − s q_k) U_kj / U_kk for j > k, U the upper Cholesky factor of (H + λI)⁻¹.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (ICLR 2023), after Hassibi & Stork, "Optimal Brain Surgeon" (NeurIPS 1992).
The pixels below a kernel are much alike, so the first layers and the depthwise ones gain most.

Pitfall: with few samples H is the samples' own, and the rounding gets worse on other images:
a layer with fewer than SAMPLES_PER_WEIGHT columns for each of its inputs is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLACES = 64  # of an image's output map, spread evenly; all of them where it is smaller
SAMPLES_PER_WEIGHT = 8
DAMP = 0.01  # λ, as a share of H's mean diagonal


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
    (kh, kw), (dh, dw) = kernel, dilations
    if any(pads):
        x = np.pad(x, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    window = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    every = np.lib.stride_tricks.sliding_window_view(x, window, (1, 2))
    every = every[:, :: strides[0], :: strides[1], ::dh, ::dw]
    high, wide = every.shape[1:3]
    picked = np.linspace(0, high * wide - 1, min(high * wide, PLACES)).astype(int)
    seen = every[:, picked // wide, picked % wide]  # (C, places, kh, kw)
    return seen.transpose(0, 2, 3, 1).reshape(groups, -1, len(picked))


def enough(x: np.ndarray, images: int) -> bool:
    """Whether so many images with columns like x say what H is."""
    return x.shape[2] * images >= SAMPLES_PER_WEIGHT * x.shape[1]


def round_weights(w: np.ndarray, s: np.ndarray, h: np.ndarray, limit: int) -> np.ndarray:
    """Integers q in -limit..limit with the least (w − s q)ᵀ H (w − s q); float64, w's shape.

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
