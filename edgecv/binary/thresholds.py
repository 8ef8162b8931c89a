"""s · dot + t >= β, of an integer dot: the least dot for which it holds, in float32 as computed.

fl(fl(s · d) + t) never falls as d grows (s > 0), so there is one border, and it is found by trying
every d once: rounding is part of what is asked, (β − t) / s is not the answer. With s < 0 the order
turns round: `flip`. A comparison with NaN never holds.
"""

from __future__ import annotations

import numpy as np

NEVER, ALWAYS = 2**30, -(2**30)  # beyond every dot


def thresholds(
    scale: np.ndarray,
    bias: np.ndarray,
    least: np.ndarray,
    most: np.ndarray | int,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(int32, bool) (filters,): the bit is (dot >= first) != second.

    scale, bias, least: float32 (filters,); most: |dot| is no larger; relu: of max(y, 0), not of y
    """
    scale, bias, least = (np.asarray(v, np.float32) for v in (scale, bias, least))
    most = np.broadcast_to(np.asarray(most, np.int64), scale.shape)
    low, high = -most - 1, most + 1  # holds(low) is False and holds(high) True, by agreement
    rising = scale >= 0

    def holds(dot: np.ndarray) -> np.ndarray:
        """Whether the bit is set, where the order rises; turned round where it falls."""
        value = scale * dot.astype(np.float32) + bias
        if relu:
            value = np.maximum(value, np.float32(0))
        found = value >= least
        return np.where(rising, found, ~found)

    while (wide := high - low > 1).any():
        middle = (low + high) // 2
        yes = holds(middle)
        high, low = np.where(wide & yes, middle, high), np.where(wide & ~yes, middle, low)
    first = np.where(high > most, NEVER, np.where(high < -most + 1, ALWAYS, high))
    return first.astype(np.int32), ~rising
