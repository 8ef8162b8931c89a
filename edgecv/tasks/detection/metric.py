"""mAP as COCO defines it, and whether two detectors differ in it on the same images.

    AP(class, t) = 1/101 sum_r max_{recall >= r} precision,      r = 0, 0.01, ..., 1
    mAP = mean of it over t = 0.50, 0.55, ..., 0.95 and the classes that the images have

by pycocotools (Lin et al., Microsoft COCO, ECCV 2014), which matches what was found to what is
true, best score first, and whose figures these are. What it matched is kept for each detection, so
that the mAP of any multiset of the images is arithmetic (`value_of`), the paired bootstrap's too.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.data.annotations import Boxes, PictureBoxes
from edgecv.errors import DataError, not_installed
from edgecv.tasks import paired
from edgecv.tasks.base import Difference, Parts, Score

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask

IOUS = 10  # thresholds; one bit each in the parts
_RECALLS = np.linspace(0.0, 1.00, 101)  # pycocotools' own, to the last bit
_FIGURES = {
    "ap50": (0, 0),
    "ap75": (5, 0),
    "ap_small": (slice(None), 1),
    "ap_medium": (slice(None), 2),
    "ap_large": (slice(None), 3),
}  # (thresholds, sizes)
_CHUNK = 1 << 18  # values of the bootstrap that are held at once, so that they stay in the cache


def score(reads: Iterable[Any], truth: Boxes, classes: Sequence[str], task: DetectionTask) -> Score:
    """mAP50:95, and beside it AP50, AP75, AP by size, precision and recall.

    reads: of each image, with boxes (K, 4) x0 y0 x1 y1 in its pixels, scores (K,), index (K,)
    Precision and recall are those of IoU 0.5 at the task's confidence, over all classes together.
    What no image has (no small object) is left out of `more`; of a class it is None.
    Raises DataError: no image has a box, or there are not as many reads as images.
    """
    found = _rows(reads)
    images = len(truth)
    if len(found[2]) != images:
        raise DataError("detection", f"{len(found[2])} answers for {images} images")
    if truth.crowd.all():
        raise DataError("detection", "no image has a box: there is nothing to be judged by")
    judged = _judged(found, truth)
    parts = _parts(judged, truth, images)
    precision = judged.eval["precision"][..., 0]  # (threshold, recall, class, size); -1: none
    figures = {name: _mean(precision[t][..., a]) for name, (t, a) in _FIGURES.items()}
    more = {name: value for name, value in figures.items() if value is not None}
    more |= _deployed(judged, found, truth, task.confidence)
    of_class = dict(zip(judged.params.catIds, precision[..., 0].transpose(2, 0, 1), strict=True))
    per_class = {
        name: _mean(of_class[k]) if k in of_class else None for k, name in enumerate(classes)
    }
    return Score(float(_mean(precision[..., 0]) or 0.0), images, per_class, more, parts)


def told_by(
    reads: Sequence[Any], sizes: Sequence[tuple[int, int]], confidence: float
) -> Boxes | None:
    """What was found with at least that score, as what is there; None where nothing was."""
    pictures = []
    for read in reads:
        sure = read.scores >= confidence
        boxes = read.boxes[sure]
        sides = boxes[:, 2:] - boxes[:, :2]
        none = np.zeros(len(boxes), bool)
        pictures.append(PictureBoxes(boxes, read.index[sure], none, sides.prod(1)))
    truth = Boxes.of(pictures, np.array(sizes))
    return truth if len(truth.index) else None


def difference(before: Parts, after: Parts, alpha: float) -> Difference:
    """The drop of mAP, by the paired bootstrap over images. Raises ValueError: other images."""
    if any(not np.array_equal(before[k], after[k]) for k in ("images", *_TRUTHS)):
        raise ValueError("measured on different test images")
    return paired.difference(value_of, before, after, int(before["images"]), alpha)


_TRUTHS = ("truth_image", "truth_index", "truth_count")
Rows = tuple[np.ndarray, np.ndarray, list[int]]


def _rows(reads: Iterable[Any]) -> Rows:
    """(rows of image, x, y, width, height, score; classes; how many of each image)"""
    counts, rows, index = [], [np.zeros((0, 6))], [np.zeros(0, np.int64)]
    for i, read in enumerate(reads):
        boxes = np.asarray(read.boxes, np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        image = np.full((len(boxes), 1), i)
        rows.append(np.hstack([image, boxes[:, :2], sides, np.reshape(read.scores, (-1, 1))]))
        index.append(np.asarray(read.index, np.int64))
        counts.append(len(boxes))
    return np.concatenate(rows), np.concatenate(index), counts


def library() -> tuple[Any, Any]:
    """pycocotools' COCO and COCOeval. Raises MissingExtraError."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise not_installed("pycocotools", "detection") from error
    return COCO, COCOeval


def _judged(found: Rows, truth: Boxes) -> Any:
    """pycocotools' COCOeval, run, of the classes that the images have."""
    COCO, COCOeval = library()  # noqa: N806  # classes
    rows, index, _ = found
    of_image = np.repeat(np.arange(len(truth)), np.diff(truth.ends, prepend=0))
    whole = truth.boxes.astype(np.float64)
    known = np.unique(truth.index[~truth.crowd])
    held = {"images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": int(k)} for k in known]}  # fmt: skip
    true = [
        {"id": n, "image_id": i, "category_id": k, "iscrowd": int(crowd), "area": area,
         "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
        for n, (i, k, crowd, area, b) in enumerate(
            zip(of_image.tolist(), truth.index.tolist(), truth.crowd.tolist(),
                truth.area.tolist(), whole.tolist(), strict=True), 1)
    ]  # fmt: skip
    kept = np.isin(index, known)
    said = [
        {"id": n, "image_id": int(r[0]), "category_id": k, "iscrowd": 0, "area": r[3] * r[4],
         "bbox": r[1:5], "score": r[5]}
        for n, (r, k) in enumerate(
            zip(rows[kept].tolist(), index[kept].tolist(), strict=True), 1)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        sides = []
        for annotations in (true, said):
            side = COCO()
            side.dataset = {**held, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        judged = _quick(COCOeval)(*sides, "bbox")
        judged.params.maxDets = [100]
        judged.evaluate()
        judged.accumulate()
    return judged


def _quick(base: Any) -> Any:
    """COCOeval that takes a short way where an image has no object of the class, most often so:
    nothing is matched, and what lies outside the range of sizes does not count."""

    class Quick(base):
        def computeIoU(self, image: int, category: int) -> Any:  # noqa: N802 - its own name
            if (image, category) not in self._gts:
                return []
            return super().computeIoU(image, category)

        def evaluateImg(self, image: int, category: int, area: Any, most: int) -> Any:  # noqa: N802
            if (image, category) in self._gts:
                return super().evaluateImg(image, category, area, most)
            found = self._dts.get((image, category))
            if not found:
                return None
            found = sorted(found, key=lambda d: -d["score"])[:most]
            beyond = np.array([d["area"] < area[0] or d["area"] > area[1] for d in found])
            return {"image_id": image, "dtScores": [d["score"] for d in found],
                    "dtMatches": np.zeros((IOUS, len(found))), "gtIgnore": np.zeros(0),
                    "dtIgnore": beyond[None].repeat(IOUS, 0)}  # fmt: skip

    return Quick


def _mean(precision: np.ndarray) -> float | None:
    """As COCOeval.summarize has it; None where no image has such an object."""
    there = precision[precision > -1]
    return float(there.mean()) if there.size else None


def _parts(judged: Any, truth: Boxes, images: int) -> Parts:
    """What `value_of` reckons with: 14 bytes a detection, 10 a class of an image.

    images: how many; image int32, index int16, score float32 (D,): of each detection, by class and
    falling score; matched, ignored uint16 (D,): a bit for each threshold; truth_image int32,
    truth_index int16, truth_count int32 (G,): how many objects are to be found.
    What lies below the last match of its class changes nothing and is left out.
    """
    areas, bits = len(judged.params.areaRng), 1 << np.arange(IOUS)
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for k, category in enumerate(judged.params.catIds):
        at = k * areas * images
        of_class = [e for e in judged.evalImgs[at : at + images] if e]
        score = np.concatenate([e["dtScores"] for e in of_class])
        order = np.argsort(-score, kind="mergesort")
        matched, ignored = (
            bits @ np.concatenate([e[key] for e in of_class], 1)[:, order].astype(bool)
            for key in ("dtMatches", "dtIgnore")
        )
        image = np.repeat([e["image_id"] for e in of_class],
                          [len(e["dtScores"]) for e in of_class])[order]  # fmt: skip
        end = int(np.flatnonzero(matched & ~ignored).max(initial=-1)) + 1
        index = np.full(len(score), category)
        for held, new in zip(columns, (image, index, score[order], matched, ignored), strict=True):
            held.append(new[:end])
    kinds = (np.int32, np.int16, np.float32, np.uint16, np.uint16)
    names = ("image", "index", "score", "matched", "ignored")
    parts = {
        name: np.concatenate(held).astype(kind)
        for name, held, kind in zip(names, columns, kinds, strict=True)
    }
    of_image = np.repeat(np.arange(images), np.diff(truth.ends, prepend=0))
    pairs = np.stack([of_image, truth.index], 1)[~truth.crowd]
    (where, counts) = np.unique(pairs, axis=0, return_counts=True)
    return {
        "images": np.array(images), **parts, "truth_image": where[:, 0].astype(np.int32),
        "truth_index": where[:, 1].astype(np.int16), "truth_count": counts.astype(np.int32),
    }  # fmt: skip


def _deployed(judged: Any, found: Rows, truth: Boxes, confidence: float) -> dict[str, float]:
    """Precision and recall of what reaches the confidence, at IoU 0.5."""
    areas, images = len(judged.params.areaRng), len(truth)
    right = wrong = 0
    for k in range(len(judged.params.catIds)):
        at = k * areas * images
        for e in filter(None, judged.evalImgs[at : at + images]):
            sure = np.asarray(e["dtScores"]) >= confidence
            counts = sure & ~e["dtIgnore"][0].astype(bool)
            matched = e["dtMatches"][0].astype(bool)
            right += int((counts & matched).sum())
            wrong += int((counts & ~matched).sum())
    rows, index, _ = found
    strange = ~np.isin(index, judged.params.catIds)
    wrong += int((strange & (rows[:, 5] >= confidence)).sum())
    said, there = right + wrong, int((~truth.crowd).sum())
    return {"precision": right / said if said else 0.0, "recall": right / there}


def value_of(parts: Parts, weights: np.ndarray) -> np.ndarray:
    """mAP of the images taken so many times each, float64 (R,).

    weights: whole numbers (N, R), how often each image counts in each of R draws
    Equal to pycocotools' on a set that holds the images so many times, but for the order of what
    one image says with one score; 0 where a draw has no box.
    """
    weights = np.asarray(weights, np.float64)
    total, classes = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for k in np.unique(parts["truth_index"]):
        rows = parts["truth_index"] == k
        there = parts["truth_count"][rows] @ weights[parts["truth_image"][rows]]
        begin, end = np.searchsorted(parts["index"], [k, k + 1])
        own = {name: parts[name][begin:end] for name in ("image", "matched", "ignored")}
        step = max(16, _CHUNK // max(1, end - begin))
        for at in range(0, weights.shape[1], step):
            draws = slice(at, at + step)
            total[draws] += _average_precision(own, there[draws], weights[:, draws])
        classes += there > 0
    return total / np.maximum(classes, 1)


def _levels(recall: np.ndarray) -> np.ndarray:
    """int8: how many of the 101 levels each recall reaches, as searchsorted says, faster."""
    near = (recall * 100.0 + 1e-9).astype(np.int8)
    return near + (_RECALLS.take(near) <= recall)


def _average_precision(own: Parts, there: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AP of one class over all thresholds, (R,); own: its rows of the parts; there: (R,) objects"""
    times = weights[own["image"]]  # (D, R)
    seen = times.cumsum(0)
    total = np.zeros(len(there))
    objects = np.maximum(there, 1.0)
    for bit in range(IOUS):
        ignored = (own["ignored"] >> bit & 1).astype(bool)
        found = np.flatnonzero((own["matched"] >> bit & 1).astype(bool) & ~ignored)
        if not len(found):
            continue
        right, said = times[found].cumsum(0), seen[found]
        if ignored.any():
            left_out = np.vstack([np.zeros(len(there)), times[ignored].cumsum(0)])
            said = said - left_out[np.searchsorted(np.flatnonzero(ignored), found)]
        precision = right / (said + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], 0)[::-1]
        levels = _levels(right / objects)
        levels[1:] -= levels[:-1].copy()
        best *= levels
        total += best.sum(0)
    return np.where(there > 0, total / (IOUS * len(_RECALLS)), 0.0)
