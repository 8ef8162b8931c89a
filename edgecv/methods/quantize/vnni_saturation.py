"""|a q_a + b q_b| < 2¹⁵ for u8 a, b: 8-bit weights on x86 without VNNI that do not saturate.

Such a processor multiplies u8 by s8 with vpmaddubsw, which adds two neighbouring products in 16
bits: 255 (q_a + q_b) fits only where the two weights of one sign together are at most 128. The
libraries' cure is 7-bit weights everywhere. But neighbours are seldom large together: here a
channel's step grows only until its worst pair fits, by a quarter where 7 bits double it. A kernel
for each channel (depthwise) is multiplied by itself, has no neighbours and keeps 8 bits; several
kernels for each channel are not: there the next positions are neighbours.

Neighbours are input channels 2i and 2i + 1 of one kernel position, which is how ONNX Runtime
(im2col in NHWC) and OpenVINO (blocks of four channels) lay them out; where the channels are odd,
ONNX Runtime's pairs reach into the next position, and both orders count. So does that of a first
layer whose image goes to depth (`backends/onnxruntime/stem.py`).
"""

from __future__ import annotations

import numpy as np

MOST = 128
_AIM = MOST - 2  # rounding may carry both weights up


def neighbours(shape: tuple[int, ...], groups: int = 1) -> np.ndarray:
    """Pairs (P, 2) of places in a row of a weight (O, C / groups, kh, kw) or (O, K)."""
    if groups > 1 and shape[:2] == (groups, 1):
        return np.zeros((0, 2), int)
    channels, places = shape[1], int(np.prod(shape[2:]))
    order = np.arange(channels * places).reshape(channels, places).T  # (places, channels)
    even = channels // 2 * 2
    found = [order[:, :even].reshape(-1, 2)]
    if channels % 2:
        flat = order.ravel()
        found.append(flat[: len(flat) // 2 * 2].reshape(-1, 2))
    return np.concatenate(found)


def stretch(w: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """By how much each step must grow for its pairs to fit: (G, O) at least 1.

    w: (G, O, K), in steps
    """
    grown = np.ones(w.shape[:2])
    for side in (np.maximum(w, 0), np.maximum(-w, 0)):
        sums = side[..., pairs[:, 0]] + side[..., pairs[:, 1]]
        grown = np.maximum(grown, sums.max(-1, initial=0.0) / _AIM)
    return grown


def fitted(q: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The integers (..., K) with the larger one of each pair that saturates brought nearer to 0."""
    q = q.copy()
    rows = q.reshape(-1, q.shape[-1])
    for sign in (1, -1):
        side = np.maximum(sign * rows, 0)
        over = side[:, pairs[:, 0]] + side[:, pairs[:, 1]] > MOST
        for row, pair in np.argwhere(over):
            a, b = pairs[pair]
            first, second = (max(0, sign * rows[row, k]) for k in (a, b))
            if (excess := first + second - MOST) > 0:  # a pair before it may have mended it
                rows[row, a if first >= second else b] -= sign * excess
    return rows.reshape(q.shape)


def saturating(q: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Which rows (..., K) hold a pair that does not fit."""
    found = np.zeros(q.shape[:-1], bool)
    for side in (np.maximum(q, 0), np.maximum(-q, 0)):
        found |= (side[..., pairs[:, 0]] + side[..., pairs[:, 1]] > MOST).any(-1)
    return found
