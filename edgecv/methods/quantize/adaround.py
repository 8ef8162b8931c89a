"""min_V (w − ŵ)ᵀ H (w − ŵ) + λ Σ 1 − |2 h(V) − 1|^β,  ŵ = s clip(⌊w / s⌋ + h(V)).

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (ICML 2020):
h(V) = clip(1.2 sigmoid(V) − 0.1, 0, 1), β falling from 20 to 2, so that each weight ends on one
side. The layer's output error is a quadratic in ŵ, so H = E[x xᵀ] stands for the images and no
image is looked at in the loop. H is scaled so that λ means the same in every layer.
"""

from __future__ import annotations

import numpy as np

STEPS, RATE, WEIGHT = 400, 0.05, 0.02
BETAS, WARMUP = (20.0, 2.0), 0.2
_STRETCH, _LOW = 1.2, -0.1


def adaround(w: np.ndarray, s: np.ndarray, h: np.ndarray, limit: int) -> np.ndarray:
    """Integers in -limit..limit, float64, w's shape.

    w: (groups, O, K) float64. s: (groups, O), above 0. h: (groups, K, K), of any scale.
    """
    scaled = (w / s[:, :, None]).astype(np.float32)
    floor = np.floor(scaled)
    diagonal = np.einsum("gkk->gk", h)
    unit = np.maximum(diagonal.mean(1), np.finfo(np.float32).tiny)
    h = (h / unit[:, None, None]).astype(np.float32)
    rest = np.clip((scaled - floor - _LOW) / _STRETCH, 1e-3, 1 - 1e-3)
    v = np.log(rest / (1 - rest))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for step in range(STEPS):
        soft = 1 / (1 + np.exp(-v))
        raw = _STRETCH * soft + _LOW
        up = np.clip(raw, 0, 1)
        slope = _STRETCH * soft * (1 - soft) * ((raw > 0) & (raw < 1))
        error = scaled - np.clip(floor + up, -limit, limit)
        grad = -2 * (error @ h) * slope
        if step >= WARMUP * STEPS:
            done = (step / STEPS - WARMUP) / (1 - WARMUP)
            beta = BETAS[1] + (BETAS[0] - BETAS[1]) * (1 + np.cos(np.pi * done)) / 2
            side = 2 * up - 1
            grad -= WEIGHT * beta * 2 * np.sign(side) * np.abs(side) ** (beta - 1) * slope
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        fix = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        v -= RATE * fix * first / (np.sqrt(second) + 1e-8)
    up = _STRETCH / (1 + np.exp(-v)) + _LOW >= 0.5
    return np.clip(floor + up, -limit, limit).astype(np.float64)
