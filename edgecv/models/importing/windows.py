"""Windows that slide along an axis: how far the last one reaches, how much of each one counts."""

from __future__ import annotations

import numpy as np


def beyond(n: int, k: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How far the last of k taps reaches behind an axis of n with its padding, rounding up.

    A window that would begin behind the axis (ceil_mode of PyTorch and ONNX) is left out.
    """
    length, reach = n + before + after, (k - 1) * dilation + 1
    count = -(-(length - reach) // stride) + 1
    if (count - 1) * stride >= n + before:
        count -= 1
    return max(0, (count - 1) * stride + reach - length)


def counted(
    n: int, k: int, stride: int, pads: tuple[int, int], over: int, include: bool
) -> np.ndarray:
    """How many places of each window count in a mean, float64 (windows,).

    include: padding counts; what is `over` the padding never does
    """
    before, after = pads
    line = np.zeros(before + n + after + over)
    line[0 if include else before : before + n + (after if include else 0)] = 1
    return np.array([line[i : i + k].sum() for i in range(0, len(line) - k + 1, stride)])
