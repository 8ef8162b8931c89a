"""Heads that give boxes in rows: beside priors, as a set, or suppressed in the file.

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
    corners,
    given,
    of_classes,
    pixels,
)

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask

Arrays = Sequence[np.ndarray]
MOST_CLASSES = 1 << 20
MOST_OF_SHARES = 2.0  # a prior reaches beyond the input, but no prior is a pixel or two


def ssd(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Boxes t (1, P, 4) and scores (1, P, B + C) of P priors (px, py, pw, ph), background among
    the scores; `ssd_scores`. v: `variances`.

        centre = p_xy + t v_0 p_wh,   size = p_wh exp(t v_1)

    Where `form` is cycxhw, t is (ty, tx, th, tw): TensorFlow's Object Detection API, whose scale
    factors 10, 10, 5, 5 are v = (0.1, 0.2) (box_coders/faster_rcnn_box_coder.py).
    Source: Liu et al., SSD, arXiv:1512.02325; torchvision, models/detection/_utils.py, BoxCoder
    """
    found = of_classes(arrays[1][0], how, ask, ssd_scores(how))
    return given(found, _beside_priors(arrays[0][0], found, how))


def ssd_scores(how: DetectionTask) -> str:
    """The activation of scores as SSD's networks leave them: softmax in the paper and torchvision,
    sigmoid in TensorFlow's Object Detection API (`score_converter: SIGMOID` of its SSDs)."""
    return "sigmoid" if how.form == "cycxhw" else "softmax"


def retinaface(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """SSD's boxes and scores, and landmarks t (1, P, 2 L) of the same priors:

        point = p_xy + t v_0 p_wh

    Source: Deng et al., RetinaFace, arXiv:1905.00641; biubug6/Pytorch_Retinaface,
    utils/box_utils.py, decode and decode_landm
    """
    found = of_classes(arrays[1][0], how, ask, "softmax")
    prior = priors_of(len(arrays[0][0]), how)[found.rows, None]
    t = arrays[2][0][found.rows].reshape(-1, arrays[2].shape[2] // 2, 2)
    points = prior[..., :2] + t * np.float32(how.variances[0]) * prior[..., 2:]
    return given(found, _beside_priors(arrays[0][0], found, how), points)


def ultraface(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Boxes (1, P, 4) that the file has decoded, (x0, y0, x1, y1) as shares of the input, and
    scores (1, P, 2), the background's first.

    Source: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, vision/ssd/ssd.py, test mode
    """
    found = of_classes(arrays[1][0], how, ask, "softmax")
    return given(found, corners(arrays[0][0][found.rows], how, "xyxy", "relative"))


def detr(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Logits (1, Q, L) and boxes (1, Q, 4), (cx, cy, w, h) as shares of the input, of a set of Q:
    softmax where the last column is "no object", else sigmoid.

    Source: Carion et al., DETR, arXiv:2005.12872, PostProcess; Zhu et al., Deformable DETR,
    arXiv:2010.04159
    """
    own = "sigmoid" if how.background is None else "softmax"
    found = of_classes(arrays[0][0], how, ask, own)
    return given(found, corners(arrays[1][0][found.rows], how, "cxcywh", "relative"))


def end2end(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """Rows (1, K, 6) of a one-to-one head: (x0, y0, x1, y1) in pixels, score, class.

    Source: Wang et al., YOLOv10, arXiv:2405.14458; ultralytics, nn/modules/head.py, postprocess
    """
    head = arrays[0][0]
    found = _chosen(head[:, 4], head[:, 5], ask)
    return given(found, corners(head[found.rows, :4], how, "xyxy", "pixels"))


def in_file(arrays: Arrays, how: DetectionTask, ask: Asked) -> Candidates:
    """What the file's own suppression leaves: boxes (1, K, 4), scores (1, K), classes (1, K) and,
    where it has one, the count of rows that hold something; or boxes with the score as fifth
    column (1, K, 5), and classes (1, K).

    Source: TensorRT EfficientNMS, TFLite_Detection_PostProcess, mmdeploy's dets and labels
    """
    boxes, *rest = (a.reshape(a.shape[1:]) if a.ndim > 1 else a for a in arrays)
    if boxes.shape[-1] == 5:
        boxes, rest = boxes[:, :4], [boxes[:, 4], *rest]
    scores, index = (a.reshape(-1) for a in rest[:2])
    found = _chosen(scores, index, ask)
    if len(rest) > 2:
        filled = found.rows < int(np.nan_to_num(rest[2]).ravel()[0])
        found = found.some(filled)
    return given(found, corners(boxes[found.rows], how, "xyxy", "pixels"))


def _beside_priors(t: np.ndarray, found: Picked, how: DetectionTask) -> np.ndarray:
    """(x0, y0, x1, y1) in pixels of the input of the rows that were picked."""
    prior, t = priors_of(len(t), how)[found.rows], _in_order(t[found.rows], how)
    centre = prior[:, :2] + t[:, :2] * np.float32(how.variances[0]) * prior[:, 2:]
    half = prior[:, 2:] * np.exp(t[:, 2:] * np.float32(how.variances[1])) / 2
    return np.concatenate([centre - half, centre + half], 1)


def priors_of(rows: int, how: DetectionTask) -> np.ndarray:
    """float32 (P, 4), (cx, cy, w, h) in pixels of the input, of a head of so many rows. Raises
    ValueError: there are others."""
    if how.priors:
        if len(how.priors) != rows:
            raise ValueError(f"{rows} rows at {len(how.priors)} priors")
        held = places.given(how.priors)
        unit = how.unit or ("relative" if np.abs(held).max() <= MOST_OF_SHARES else "pixels")
        return _in_order(held, how) * pixels(how, unit)
    places.check(rows, how.input, how.strides, how.anchors)
    return places.priors(how.input, how.strides, how.anchors)


def _in_order(rows: np.ndarray, how: DetectionTask) -> np.ndarray:
    """(K, 4) of x, y, w, h."""
    return rows[:, [1, 0, 3, 2]] if how.form == "cycxhw" else rows


def _chosen(scores: np.ndarray, index: np.ndarray, ask: Asked) -> Picked:
    """Rows whose class the file has chosen, (K,) each; a class below 0 fills an empty row."""
    index = np.rint(index)  # an integer grid may put a class beside its number
    lost = np.isnan(scores) | ~(np.abs(index) <= MOST_CLASSES)
    rows = np.flatnonzero((scores >= ask.confidence) & (index >= 0) & ~lost)
    return Picked(rows, index[rows].astype(np.int64), scores[rows], int(lost.sum()))
