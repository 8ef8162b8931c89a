"""Non-maximum suppression: of boxes that overlap by more than a threshold, the best one.

Greedy, in the order of scores, equal scores in the order given; IoU without the pixel's own width;
what overlaps by exactly the threshold stays: as torchvision.ops.nms and batched_nms. Boxes are
taken in blocks of the best: a block is checked against what is kept, then in itself, so that the
work ends when enough is kept, and no loop is longer than the boxes that count.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import numpy as np

from edgecv.tasks.detection.candidates import MOST, Asked

BLOCK = 128


def best(scores: np.ndarray, most: int) -> np.ndarray:
    """Which are the best, best first, equal ones in the order given: int64."""
    return np.argsort(-scores, kind="stable")[:most]


def suppressed(boxes: np.ndarray, scores: np.ndarray, index: np.ndarray, ask: Asked) -> np.ndarray:
    """Which boxes stay, best first: int64, at most as many as are asked for.

    boxes: (N, 4), (x0, y0, x1, y1); scores, index: (N,). No NaN.
    """
    order = best(scores, MOST)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        if len(kept):
            block = block[~_over(boxes, index, block, kept, ask).any(1)]
        stays = _greedy(_over(boxes, index, block, block, ask))
        kept = np.concatenate([kept, block[stays]])
        if len(kept) >= ask.most:
            break
    return kept[: ask.most]


def _over(
    boxes: np.ndarray, index: np.ndarray, a: np.ndarray, b: np.ndarray, ask: Asked
) -> np.ndarray:
    """bool (A, B): whether rows a and b overlap by more than the threshold and count as one."""
    ax0, ay0, ax1, ay1 = boxes[a].T[:, :, None]
    bx0, by0, bx1, by1 = boxes[b].T[:, None, :]
    shared, high = np.minimum(ax1, bx1), np.minimum(ay1, by1)
    shared -= np.maximum(ax0, bx0)
    high -= np.maximum(ay0, by0)
    np.maximum(shared, 0, out=shared)
    shared *= np.maximum(high, 0, out=high)
    limit = np.add((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0), out=high)
    limit -= shared
    limit *= np.float32(ask.iou)
    over = shared > limit
    return over if ask.agnostic else over & (index[a][:, None] == index[b])


def _greedy(over: np.ndarray) -> np.ndarray:
    """bool (N,): what stays, of rows in the order of their scores."""
    stays = np.ones(len(over), bool)
    for i, row in enumerate(over):
        if stays[i]:
            stays[i + 1 :] &= ~row[i + 1 :]
    return stays
