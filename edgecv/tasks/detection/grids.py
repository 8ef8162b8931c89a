"""Heads that answer at every cell of one map or more.

x, y: the cell's column and row; s: its stride in input pixels; t: what the network says.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecv.tasks.detection import places
from edgecv.tasks.detection.candidates import (
    Asked,
    Candidates,
    Picked,
    activation,
    corners,
    given,
    logit,
    of_classes,
    picked,
    pixels,
    sigmoid,
    softmax,
)

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask

Arrays = Sequence[np.ndarray]
REACH = 16  # of a distribution: ultralytics' reg_max
MOST_SHARE = 1.5  # a mean of shares of the input lies below, one of pixels above


def rows_of(maps: Arrays) -> np.ndarray:
    """(N, C) of one array (1, N, C), or of maps (1, C, H, W), one after another."""
    if maps[0].ndim == 3:
        return maps[0][0]
    return np.concatenate([m[0].reshape(m.shape[1], -1).T for m in maps])


def yolox(maps: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Rows (tx, ty, tw, th, objectness, classes); score = objectness * class.

        centre = (t + (x, y)) s,   size = exp(t) s

    A file that was exported with decode_in_inference has centre and size in pixels; then the mean
    of all centres lies about the middle of the input, where raw ones are offsets within a cell.
    Source: Ge et al., YOLOX, arXiv:2107.08430; yolox/models/yolo_head.py, decode_outputs
    """
    head = rows_of(maps)
    found, _ = _with_objectness(head, how, ask)
    t = head[found.rows, :4]
    if is_decoded(head, how):
        return given(found, corners(t, how, "cxcywh", "pixels"))
    place, step = _cells(head, found, how)
    return given(found, _about((t[:, :2] + place) * step, np.exp(t[:, 2:]) * step))


def yolov5(maps: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Rows (tx, ty, tw, th, objectness, classes) of each anchor (aw, ah); score =
    objectness * class.

        centre = (2 sigmoid(t) - 0.5 + (x, y)) s,   size = (2 sigmoid(t))^2 (aw, ah)

    One output is decoded already, cx, cy, w, h in pixels or shares of the input; maps,
    (1, A (5 + C), H, W) or (1, A, H, W, 5 + C), are not.
    Source: ultralytics/yolov5, models/yolo.py, Detect.forward
    """
    if maps[0].ndim == 3:
        head = maps[0][0]
        found, _ = _with_objectness(head, how, ask)
        return given(found, corners(head[found.rows, :4], how, "cxcywh", unit(head, how)))
    head = np.concatenate([of_anchors(m, len(a)) for m, a in zip(maps, how.anchors, strict=True)])
    found, raw = _with_objectness(head, how, ask)
    t = head[found.rows, :4]
    t = 2 * (sigmoid(t) if raw else t)
    places.check(len(head), how.input, how.strides, how.anchors)
    place, step, shape = (
        v[found.rows] for v in places.anchor_grid(how.input, how.strides, how.anchors)
    )
    return given(found, _about((t[:, :2] - 0.5 + place) * step, t[:, 2:] ** 2 * shape))


def yolov8(maps: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Columns (box, classes) of each cell; score = class. YOLO11 is the same.

    One output (1, 4 + C, N) is decoded already, cx, cy, w, h in pixels or, as exports to TFLite
    have it, in shares of the input. Maps (1, 4 R + C, H, W), or of each stride (1, 4 R, H, W) and
    then (1, C, H, W), hold for each side a distribution over the distances 0..R-1 of that side to
    the cell's middle, R = 16:

        d = sum_i i softmax(t)_i,   box = ((x, y) + 0.5 - d_lt, (x, y) + 0.5 + d_rb) s

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388; ultralytics, nn/modules/head.py,
    Detect, and utils/tal.py, dist2bbox
    """
    if maps[0].ndim == 3:
        turned = maps[0].shape[2] == places.count(how.input, how.strides)
        head = maps[0][0].T if turned else maps[0][0]
        found = of_classes(head[:, 4:], how, ask, "sigmoid")
        return given(found, corners(head[found.rows, :4], how, "cxcywh", unit(head, how)))
    if len(maps) == len(how.strides):
        head = rows_of(maps)
        sides, classes = head[:, : 4 * REACH], head[:, 4 * REACH :]
    else:
        sides, classes = rows_of(maps[0::2]), rows_of(maps[1::2])
    found = of_classes(classes, how, ask, "sigmoid")
    share = softmax(sides[found.rows].reshape(-1, 4, sides.shape[1] // 4))
    d = share @ np.arange(share.shape[2], dtype=np.float32)
    place, step = _cells(sides, found, how)
    middle = place + np.float32(0.5)
    return given(found, np.concatenate([middle - d[:, :2], middle + d[:, 2:]], 1) * step)


def fastestdet(maps: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """One map (1, 5 + C, H, W): objectness, tx, ty, tw, th, classes, both scores in 0..1 already.

        score = objectness^0.6 class^0.4
        centre = ((x, y) + tanh(t)) / (W, H),   size = sigmoid(t)            of the input's size

    Source: dog-qiuqiu/FastestDet, utils/tool.py, handle_preds
    """
    head = rows_of(maps)
    objectness = np.maximum(head[:, 0], 0) ** np.float32(0.6)
    nan = int(np.isnan(objectness).sum())
    likely = np.flatnonzero(objectness >= ask.confidence)
    scores = np.maximum(head[likely, 5:], 0) ** np.float32(0.4) * objectness[likely, None]
    found = _within(likely, picked(scores, ask.confidence, ask.every_class), nan)
    t = head[found.rows, 1:5]
    high, wide = maps[0].shape[2:]
    place = np.stack([found.rows % wide, found.rows // wide], 1).astype(np.float32)
    centre = (place + np.tanh(t[:, :2])) / np.array([wide, high], np.float32)
    return given(found, _about(centre, sigmoid(t[:, 2:])) * pixels(how, "relative"))


def centernet(maps: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Maps: heat (1, C, H, W), size and offset (1, 2, H, W) in cells. A cell answers where its
    heat is the largest of the 3 x 3 about it; nothing is suppressed after that.

        centre = ((x, y) + offset) s,   size = size s

    Source: Zhou et al., Objects as Points, arXiv:1904.07850; lib/models/decode.py, ctdet_decode
    """
    heat, size, offset = (m[0] for m in maps)
    kind = activation(heat, how, "sigmoid")
    peaks = np.where(_highest(heat) | np.isnan(heat), heat, np.float32(-np.inf))
    least = logit(ask.confidence) if kind == "sigmoid" else max(ask.confidence, 1e-9)
    found = picked(peaks.reshape(len(heat), -1).T, least, ask.every_class)
    if kind == "sigmoid":
        found = found.some(np.isfinite(found.scores))
        found = found._replace(scores=sigmoid(found.scores))
        found = found.some(found.scores >= ask.confidence)
    y, x = np.divmod(found.rows, heat.shape[2])
    stride = np.float32(how.strides[0])
    centre = (np.stack([x, y], 1) + offset[:, y, x].T) * stride
    return given(found, _about(centre.astype(np.float32), size[:, y, x].T * stride))


def _highest(heat: np.ndarray) -> np.ndarray:
    """bool (C, H, W): whether a value is the largest of the nine about it."""
    c, high, wide = heat.shape
    padded = np.full((c, high + 2, wide + 2), -np.inf, heat.dtype)
    padded[:, 1:-1, 1:-1] = heat
    across = np.fmax(np.fmax(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    return heat == np.fmax(np.fmax(across[:, :-2], across[:, 1:-1]), across[:, 2:])


def _with_objectness(head: np.ndarray, how: DetectionTask, ask: Asked) -> tuple[Picked, bool]:
    """What reaches the confidence of rows (box, objectness, classes), objectness * class; and
    whether they were raw. No class is above 1, so that only rows count whose objectness alone
    reaches it."""
    objectness = head[:, 4]
    raw = activation(objectness, how, "sigmoid") == "sigmoid"
    likely = np.flatnonzero(objectness >= (logit(ask.confidence) if raw else ask.confidence))
    scores = head[likely, 4:]
    if raw:
        scores = sigmoid(scores)
    nan = int(np.isnan(objectness).sum())
    chosen = picked(scores[:, 1:] * scores[:, :1], ask.confidence, ask.every_class)
    return _within(likely, chosen, nan), raw


def _within(rows: np.ndarray, chosen: Picked, nan: int) -> Picked:
    """What was picked of some rows, by the rows of the whole."""
    return chosen._replace(rows=rows[chosen.rows], nan=chosen.nan + nan)


def _middle(rows: np.ndarray, how: DetectionTask) -> float:
    """The mean x of the rows of all cells: about the middle of the input where x is a centre."""
    return float(np.clip(np.nan_to_num(rows[:, 0]), 0, how.input[1]).mean())


def is_decoded(rows: np.ndarray, how: DetectionTask) -> bool:
    if how.decoded is not None or how.unit == "relative":
        return how.decoded is not False
    return _middle(rows, how) > how.input[1] / 8


def unit(rows: np.ndarray, how: DetectionTask) -> str:
    """Of centres: half an input is tens of pixels, or a half."""
    return "relative" if _middle(rows, how) < MOST_SHARE else "pixels"


def _cells(rows: np.ndarray, found: Picked, how: DetectionTask) -> tuple[np.ndarray, np.ndarray]:
    """(column, row), (K, 2), and stride, (K, 1), of what was picked."""
    places.check(len(rows), how.input, how.strides)
    place, step = places.grid(how.input, how.strides)
    return place[found.rows], step[found.rows]


def _about(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(x0, y0, x1, y1) of centres and sizes, (K, 2) each."""
    half = size / 2
    return np.concatenate([centre - half, centre + half], 1)


def of_anchors(values: np.ndarray, anchors: int) -> np.ndarray:
    """(A H W, 5 + C) of a map, an anchor's whole map before the next one's."""
    if values.ndim == 4:
        _, channels, high, wide = values.shape
        values = values.reshape(1, anchors, channels // anchors, high, wide).transpose(
            0, 1, 3, 4, 2
        )
    return values.reshape(-1, values.shape[-1])
