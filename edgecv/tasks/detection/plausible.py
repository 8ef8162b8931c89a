"""Whether a decoder that fits the shapes also says what can be: FastestDet's one map has the shape
of a map of YOLOv8, and read as that it is boxes of one size everywhere.

Conservative, for a refusal: many boxes on several photographs, and nothing that a detector of few
objects, or of objects alike, or one without training would say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection.candidates import Asked
from edgecv.tasks.detection.decoders import TABLE
from edgecv.tasks.detection.fits import FITS, Seen

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask

LEAST_IMAGES, LEAST_BOXES = 4, 50
ALIKE = 0.1  # of the mean: sides that vary by less are of one size; right ones vary by 0.3 and more
OVER = 0.1  # of the input's side that a box reaches over its border
SHARE = 0.5  # of the boxes
CROWDED = 1 / 3  # of all places: without training most of them say something


def implausible(task: DetectionTask, images: Sequence[Mapping[str, np.ndarray]]) -> str:
    """What was read that cannot be, a phrase; "" where it can.

    images: the outputs of each, float32, by name
    """
    asked = Asked.of(task, {"confidence": 0.0, "every_class": False})
    boxes, places = [], 0
    for outputs in images:
        with np.errstate(all="ignore"):
            found = task._decoded(outputs, asked)
        sure = found.scores >= max(task.confidence, TABLE[task.decoder].confidence)
        boxes.append(found.boxes[sure])
        places += len(found.scores)
    every = np.concatenate(boxes) if boxes else np.zeros((0, 4), np.float32)
    if len(images) < LEAST_IMAGES or not LEAST_BOXES <= len(every) < CROWDED * places:
        return ""
    high, wide = task.input
    limits = np.array([wide, high], np.float32)
    middle = (every[:, :2] + every[:, 2:]) / 2
    of = f"{len(every)} boxes on {len(images)} images"
    if ((middle < 0) | (middle > limits)).any(1).mean() > SHARE:
        return f"{of}, most of them with their middle outside the image"
    sides = every[:, 2:] - every[:, :2]
    mean = sides.mean(0)
    over = (every[:, :2] < -OVER * limits) | (every[:, 2:] > (1 + OVER) * limits)
    if (sides.std(0) < ALIKE * mean).all() and over.any(1).mean() > SHARE:
        return f"{of}, all some {mean[0]:.0f}x{mean[1]:.0f} pixels and most over the image's border"
    return ""


def others(task: DetectionTask, outputs: Sequence[TensorSpec]) -> list[str]:
    """The other decoders that those outputs' shapes fit, whatever their classes are."""
    same = TABLE[task.decoder]
    return [
        word
        for word in FITS
        if TABLE[word] is not same
        and FITS[word](Seen(outputs, task.input, None, {"decoder": word})) is not None
    ]
