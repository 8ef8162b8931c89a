"""Which boxes of two detectors are of one object: those that overlap, the most first."""

from __future__ import annotations

import numpy as np

from edgecv.tasks.drawing import Found

SAME = 0.5  # intersection over union from which two boxes are of one object, COCO's AP50


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4), x0 y0 x1 y1."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (a, b))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0, None)
    shared = sides.prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    whole = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))


def paired(over: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows and columns of overlaps, the largest first as long as it is SAME, each once."""
    left, pairs = over.copy(), []
    while left.size and left.max() >= SAME:
        i, j = (int(n) for n in np.unravel_index(int(left.argmax()), left.shape))
        pairs.append((i, j))
        left[i], left[:, j] = 0.0, 0.0
    return pairs


def of_one_class(before: Found, after: Found) -> list[tuple[int, int]]:
    """(row of `before`, row of `after`) of boxes of one class that are of one object."""
    alike = before.index[:, None] == after.index[None]
    return paired(np.where(alike, overlaps(before.boxes, after.boxes), 0.0))
