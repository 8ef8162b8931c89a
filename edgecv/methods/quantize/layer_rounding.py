"""One layer's integers, scales and bias: q ≈ w / s, b' = b + (w − s q) E[x], b_q = b' / (s_x s).

The bias takes out what rounding adds to a layer's mean: Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction" (ICCV 2019, section 4.2; E[x] is measured here).

A channel that training left dead (|w| ~ 1e-9, any bias) has so small an s that b_q overflows
int32 and wraps to the other sign. Its scale is raised until b_q fits: s >= |b| / (s_x LIMIT). Its
weights then round to zero, and the channel stays the constant that it was (TensorFlow's own
converter does so as well: AdjustWeightsForBiasScale).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.rounding import Moments, round_layer
from edgecv.methods.quantize.vnni_saturation import fitted, stretch

LIMIT = 2**30  # half of int32, so that the products added to a bias cannot wrap either
FULL, SEVEN_BITS = 127, 64  # the largest integers of 8 bits, symmetric, and of 7
FEW = 7  # the largest integer of 4 bits, symmetric


def largest(limit: int, options: Options) -> int:
    """The largest integer of a weight. limit: the same for 8 bits, 127 or 64."""
    return min(limit, FEW) if options.weight_bits == 4 else limit


@dataclass(frozen=True)
class Settled:
    """q: whole numbers, the weight's shape. s: (O,), or (1,) for one scale. bias: float64 (O,).

    raised: how many scales had to rise for the bias
    """

    q: np.ndarray
    s: np.ndarray
    bias: np.ndarray
    raised: int


def settle_layer(
    w: np.ndarray,
    bias: np.ndarray,
    seen: Moments,
    scale: np.ndarray,
    input_scale: float | None,
    limit: int,
    options: Options,
    pairs: np.ndarray | None = None,
) -> Settled:
    """w: float, output channel first, each row in the order of seen's columns. bias: float (O,).

    scale: (O,) or (1,), at which the largest weight is `limit`. input_scale: the input's, None
    where the bias stays float. pairs: weights that may not be large together
    (`vnni_saturation.py`), where `limit` is for processors that saturate
    """
    groups, per_channel = len(seen.mean), scale.size > 1
    rows = w.reshape(groups, len(w) // groups, -1).astype(np.float64)
    pairs = pairs if limit < FULL and options.weight_bits == 8 else None
    most = largest(limit, options) if pairs is None else FULL
    start = np.broadcast_to(scale.astype(np.float64), len(w)).reshape(groups, -1) * (limit / most)
    if pairs is not None:
        grown = stretch(rows / start[:, :, None], pairs)
        start = start * (grown if per_channel else grown.max())
    found = round_layer(
        rows, start, seen.square, most, options.rounding, search=most <= FEW, shared=not per_channel
    )
    q, s, b = found.q, found.s, bias.astype(np.float64)
    raised = 0
    if input_scale is not None:
        need = np.abs(b).reshape(groups, -1) / (input_scale * LIMIT)
        need = np.maximum(s, need if per_channel else need.max())
        raised = int((need > s).sum()) if per_channel else int((need > s).any())
        q = np.where((need > s)[:, :, None], np.rint(rows / need[:, :, None]), q)
        s = need
    if pairs is not None:
        q = fitted(q, pairs)
    s = s.astype(np.float32).astype(np.float64)  # as the graph holds it
    if options.bias_correction:
        error = rows - s[:, :, None] * q
        b = b + np.einsum("gok,gk->go", error, seen.mean).ravel()
    return Settled(q.reshape(w.shape), s.ravel() if per_channel else s[:1, 0], b, raised)
