"""What a random detector's or segmentation network's outputs mean, by equations of its own: nothing
of `edgecv.tasks` is called here. float64, a row at a time where that is the clearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

import numpy as np

from benchmarks.random_nets.task_nets import REACH, Built, grid, priors_of

Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]  # (K, 4) x0 y0 x1 y1, scores (K,), classes (K,)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def placed(made: Built, image: tuple[int, int]) -> tuple[tuple[float, float], tuple[int, int]]:
    """((scale_x, scale_y), (left, top)) of an image of (height, width) in the input."""
    (h, w), (high, wide) = made.size, image
    if made.resize == "stretch":
        return (w / wide, h / high), (0, 0)
    ratio = min(h / high, w / wide)
    if made.pad_at == "corner":
        new = max(1, floor(wide * ratio)), max(1, floor(high * ratio))
        return (new[0] / wide, new[1] / high), (0, 0)
    new = max(1, round(wide * ratio)), max(1, round(high * ratio))
    left, top = (round((a - b) / 2 - 0.1) for a, b in zip((w, h), new, strict=True))
    return (new[0] / wide, new[1] / high), (left, top)


def candidates(made: Built, outputs: Mapping[str, np.ndarray], image: tuple[int, int]) -> Boxes:
    """Every place's best class, its score and its box in pixels of the image, nothing left out."""
    values = {name: v.astype(np.float64) for name, v in outputs.items()}
    boxes, scores = READERS[made.kind](made, list(values.values()))
    (sx, sy), (left, top) = placed(made, image)
    boxes = (boxes - [left, top, left, top]) / [sx, sy, sx, sy]
    return boxes, scores.max(1), scores.argmax(1)


def suppressed(made: Built, found: Boxes, image: tuple[int, int]) -> Boxes:
    """What reaches the confidence and no better box of its class covers, clipped to the image."""
    boxes, scores, index = found
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < made.decode["confidence"]:
            break
        rivals = [k for k in kept if index[k] == index[i]] if made.kind not in FREE else []
        if all(overlap(boxes[k], boxes[i]) <= made.decode["iou"] for k in rivals):
            kept.append(int(i))
    high, wide = image
    clipped = boxes[kept].clip(0, [wide, high, wide, high])
    on = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped[on], scores[kept][on], index[kept][on]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / whole) if whole > 0 else 0.0


def labelled(made: Built, outputs: Mapping[str, np.ndarray], image: tuple[int, int]) -> Any:
    """(the class of each pixel (H, W), by how much it is ahead of the next one (H, W)).

    Bilinear between the centres of cells, by one row and column of weights each.
    """
    (z,) = (v.astype(np.float64) for v in outputs.values())
    z = z.reshape(-1, *z.shape[-2:])
    (sx, sy), (left, top) = placed(made, image)
    rows = _weights(image[0], sy, top, made.size[0], z.shape[1])
    columns = _weights(image[1], sx, left, made.size[1], z.shape[2])
    if made.how["holds"] == "indices":
        nearest = z[0][rows.argmax(1)][:, columns.argmax(1)]
        sure = (rows.max(1)[:, None] > 0.55) & (columns.max(1) > 0.55)
        return nearest.astype(int), sure.astype(float)
    whole = np.einsum("yr,crs,xs->cyx", rows, z, columns)
    if made.how["holds"] in ("logit", "probability"):
        middle = 0.5 if made.how["holds"] == "probability" else 0.0
        return (whole[0] > middle).astype(int), np.abs(whole[0] - middle)
    order = np.sort(whole, 0)
    ahead = order[-1] - order[-2] if len(whole) > 1 else np.ones(image)
    return whole.argmax(0), ahead


def _weights(pixels: int, scale: float, offset: int, side: int, cells: int) -> np.ndarray:
    """(pixels, cells): how much of each cell a pixel takes; cells of the padding take no part."""
    found = np.zeros((pixels, cells))
    centres = [(k + 0.5) * side / cells for k in range(cells)]
    there = [k for k, c in enumerate(centres) if offset <= c <= offset + pixels * scale]
    first, last = (there[0], there[-1]) if there else (0, 0)
    for p in range(pixels):
        at = min(max(((p + 0.5) * scale + offset) * cells / side - 0.5, first), last)
        low = floor(at)
        found[p, low] += 1 - (at - low)
        found[p, min(low + 1, last)] += at - low
    return found


# --- heads: boxes (K, 4) in pixels of the input and scores (K, C)


def _flat(maps: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([m[0].reshape(m.shape[1], -1).T for m in maps])


def _about(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - size / 2, centre + size / 2], 1)


def _yolox(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = _flat(arrays) if made.how["spelling"] == "maps" else arrays[0][0]
    likely = sigmoid(rows[:, 4:]) if made.how["raw"] else rows[:, 4:]
    scores = likely[:, 1:] * likely[:, :1]
    if made.how["spelling"] == "decoded":
        return _about(rows[:, :2], rows[:, 2:4]), scores
    place, step = grid(made.size, made.decode["strides"])
    return _about((rows[:, :2] + place) * step, np.exp(rows[:, 2:4]) * step), scores


def _yolov5(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    boxes, scores = [], []
    for m, s, of_map in zip(arrays, made.decode["strides"], made.how["anchors"], strict=True):
        for a, anchor in enumerate(of_map):
            if made.how["five"]:
                t = m[0, a]
            else:
                n = 5 + made.classes
                t = m[0, a * n : (a + 1) * n].transpose(1, 2, 0)
            place, _ = grid((t.shape[0], t.shape[1]), [1])
            v = sigmoid(t.reshape(-1, t.shape[-1]))
            boxes.append(_about((v[:, :2] * 2 - 0.5 + place) * s, (v[:, 2:4] * 2) ** 2 * anchor))
            scores.append(v[:, 5:] * v[:, 4:5])
    return np.concatenate(boxes), np.concatenate(scores)


def _yolov8(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    spelling = made.how["spelling"]
    if spelling == "decoded":
        rows = arrays[0][0].T
        return _about(rows[:, :2], rows[:, 2:4]), rows[:, 4:]
    if spelling == "apart":
        sides, classes = _flat(arrays[0::2]), _flat(arrays[1::2])
    else:
        rows = _flat(arrays)
        sides, classes = rows[:, : 4 * REACH], rows[:, 4 * REACH :]
    d = softmax(sides.reshape(-1, 4, REACH)) @ np.arange(REACH)
    place, step = grid(made.size, made.decode["strides"])
    middle = place + 0.5
    return np.concatenate([middle - d[:, :2], middle + d[:, 2:]], 1) * step, sigmoid(classes)


def _fastestdet(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    high, wide = arrays[0].shape[2:]
    rows, (place, _) = _flat(arrays), grid((high, wide), [1])
    centre = (np.tanh(rows[:, 1:3]) + place) / [wide, high]
    whole = np.array(made.size[::-1])
    scores = rows[:, :1] ** 0.6 * rows[:, 5:] ** 0.4
    return _about(centre * whole, sigmoid(rows[:, 3:5]) * whole), scores


def _centernet(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    heat, size, offset = (a[0] for a in arrays)
    heat = sigmoid(heat) if made.how["raw"] else heat
    c, high, wide = heat.shape
    scores = np.zeros((high * wide, c))
    for k, y, x in np.ndindex(c, high, wide):
        about = heat[k, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        scores[y * wide + x, k] = heat[k, y, x] if heat[k, y, x] >= about.max() else 0
    place, _ = grid((high, wide), [1])
    stride = made.how["stride"]
    centre = place + offset.reshape(2, -1).T
    return _about(centre * stride, size.reshape(2, -1).T * stride), scores


def _ssd(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    t, values = arrays[0][0], arrays[1][0]
    scores = (sigmoid if made.how["form"] else softmax)(values) if made.how["raw"] else values
    scores = scores[:, 1:] if made.how["background"] == 0 else scores[:, :-1]
    if made.how["form"]:
        t = t[:, [1, 0, 3, 2]]
    p = priors_of(made.size, made.strides, made.how["anchors"])
    return _about(p[:, :2] + t[:, :2] / 10 * p[:, 2:], p[:, 2:] * np.exp(t[:, 2:] / 5)), scores


def _detr(made: Built, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    logits, boxes = arrays[0][0], arrays[1][0] * np.tile(made.size[::-1], 2)
    scores = softmax(logits)[:, :-1] if made.how["none"] else sigmoid(logits)
    return _about(boxes[:, :2], boxes[:, 2:]), scores


READERS = {
    "yolox": _yolox, "yolov5": _yolov5, "yolov8": _yolov8, "fastestdet": _fastestdet,
    "centernet": _centernet, "ssd": _ssd, "detr": _detr,
}  # fmt: skip
FREE = ("centernet", "detr")  # heads that answer once for each object
