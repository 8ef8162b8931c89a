"""What decoders share: what is asked of them, what they give, and how scores and boxes are written.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask


class Asked(NamedTuple):
    """What a call asks of a reading.

    confidence, iou: 0..1; most: detections; every_class: whether a place answers with every class
    that reaches the confidence, or with its best one only
    """

    confidence: float
    iou: float
    most: int
    agnostic: bool
    every_class: bool = False

    @staticmethod
    def of(task: DetectionTask, asked: Mapping[str, Any]) -> Asked:
        """What is asked, the rest as deployed; None is not asked. Raises RecipeError: a value that
        cannot be; TypeError: what nobody can ask."""
        said = {k: v for k, v in asked.items() if v is not None}
        known = ("confidence", "iou", "max_detections", "agnostic", "every_class")
        if unknown := sorted(said.keys() - set(known)):
            raise TypeError(f"{unknown[0]} is none of {', '.join(known)}")
        for key in ("confidence", "iou"):
            value = said.get(key, 0)
            if not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
                raise RecipeError(key, f"{value!r} is wrong", "0 to 1")
        most = said.get("max_detections", task.max_detections)
        if not (isinstance(most, int | np.integer) and most > 0):
            raise RecipeError("max_detections", f"{most!r} is wrong", "a count above 0")
        return Asked(
            said.get("confidence", task.confidence),
            said.get("iou", task.iou),
            int(most),
            said.get("agnostic", task.agnostic),
            said.get("every_class", False),
        )


class Candidates(NamedTuple):
    """What a head says, before suppression, in any order.

    boxes: float32 (K, 4), (x0, y0, x1, y1) in pixels of the input; scores: float32 (K,), 0..1;
    index: int64 (K,); landmarks: float32 (K, L, 2) in pixels of the input; nan: rows that said
    NaN, which are not among them
    """

    boxes: np.ndarray
    scores: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    landmarks: np.ndarray | None = None
    nan: int = 0

    def some(self, which: np.ndarray) -> Candidates:
        points = None if self.landmarks is None else self.landmarks[which]
        return Candidates(
            self.boxes[which], self.scores[which], self.index[which], points, self.nan
        )


class Picked(NamedTuple):
    """Rows of a head that reach a confidence, with a class and its score, (K,) each; and how many
    rows said NaN."""

    rows: np.ndarray
    index: np.ndarray  # type: ignore[assignment]
    scores: np.ndarray
    nan: int

    def some(self, which: np.ndarray) -> Picked:
        return Picked(self.rows[which], self.index[which], self.scores[which], self.nan)


MOST = 30_000  # candidates of an image: YOLOv5's max_nms


def picked(scores: np.ndarray, least: float, every_class: bool) -> Picked:
    """What reaches `least`, of scores (N, C) in the order of their values; the best MOST."""
    best = scores.max(1)  # NaN where one of the row is
    rows = np.flatnonzero(best >= least)
    nan = int(np.isnan(best).sum())
    if not every_class:
        return Picked(rows, scores[rows].argmax(1), best[rows], nan)
    at, index = np.nonzero(scores[rows] >= least)
    found = Picked(rows[at], index, scores[rows[at], index], nan)
    if len(index) > MOST:
        found = found.some(np.sort(np.argpartition(-found.scores, MOST)[:MOST]))
    return found


def given(picks: Picked, boxes: np.ndarray, landmarks: np.ndarray | None = None) -> Candidates:
    """Rows as candidates; those whose box is NaN, or whose score or landmarks have no end, are
    dropped and counted."""
    whole = ~np.isnan(boxes).any(1) & np.isfinite(picks.scores)
    if landmarks is not None:
        whole &= np.isfinite(landmarks).all((1, 2))
    lost = len({*picks.rows[~whole].tolist()})
    if landmarks is not None:
        landmarks = landmarks[whole].astype(np.float32, copy=False)
    return Candidates(
        boxes[whole].astype(np.float32, copy=False),
        picks.scores[whole].astype(np.float32, copy=False),
        picks.index[whole].astype(np.int64, copy=False),
        landmarks,
        picks.nan + lost,
    )


# --- scores


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logit(score: float) -> float:
    """The value whose sigmoid is the score, a hair below it: what is compared is compared again."""
    if not 0 < score < 1:
        return -inf if score <= 0 else 15.0  # where float32's sigmoid rounds to 1
    return log(score / (1 - score)) - 1e-3


def activation(values: np.ndarray, how: DetectionTask, own: str) -> str:
    """What makes scores of the values: as said, or none where all lie in 0..1 (to the rounding of
    an integer grid), else the decoder's own."""
    if how.activation:
        return how.activation
    low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
    return "none" if low >= -1e-2 and high <= 1.01 else own


def of_classes(values: np.ndarray, how: DetectionTask, ask: Asked, own: str) -> Picked:
    """What reaches the confidence, of a head's class values (N, C), the background's among them."""
    kind = activation(values, how, own)
    if kind == "softmax":
        values = softmax(values)
    least = logit(ask.confidence) if kind == "sigmoid" else ask.confidence
    first = 1 if how.background == 0 else 0
    classes = values[:, first : -1 if how.background == -1 else None]
    found = picked(classes, least, ask.every_class)
    if kind != "sigmoid":
        return found
    found = found._replace(scores=sigmoid(found.scores))
    return found.some(found.scores >= ask.confidence)


# --- boxes


def corners(boxes: np.ndarray, how: DetectionTask, form: str, unit: str) -> np.ndarray:
    """Boxes (K, 4) that the file has decoded as (x0, y0, x1, y1) in pixels of the input.

    form, unit: the decoder's own, where the manifest says none
    """
    form, unit = how.form or form, how.unit or unit
    a, b, c, d = boxes.T
    if form == "cxcywh":
        ends = [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    elif form == "xywh":
        ends = [a, b, a + c, b + d]
    elif form == "yxyx":
        ends = [b, a, d, c]
    elif form == "cycxhw":
        ends = [b - d / 2, a - c / 2, b + d / 2, a + c / 2]
    else:
        ends = [a, b, c, d]
    return np.stack(ends, 1) * pixels(how, unit)


def pixels(how: DetectionTask, unit: str) -> np.ndarray:
    """float32 (4,): what takes x, y, x, y of that unit to pixels of the input."""
    high, wide = how.input if unit == "relative" else (1, 1)
    return np.array([wide, high, wide, high], np.float32)
