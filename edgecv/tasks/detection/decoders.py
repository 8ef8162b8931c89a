"""The decoders, by the word of `--decoder` and of the manifest.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecv.tasks.detection import grids, sets
from edgecv.tasks.detection.candidates import Asked, Candidates

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask


@dataclass(frozen=True)
class Decoder:
    """How one kind of head is read.

    decode:      of the outputs of one image, in the decoder's order, its candidates
    expects:     what shapes it reads, a phrase: N cells, C classes
    suppress:    whether boxes are suppressed after it
    every_class: whether its own repository evaluates it with every class of a place (YOLOv5 and
                 later: multi_label; SSD a class at a time; CenterNet and Deformable DETR the best
                 of all pairs), or with a place's best one (YOLOX, FastestDet)
    confidence, iou: what its own repository's demonstration asks
    """

    decode: Callable[[Sequence[np.ndarray], DetectionTask, Asked], Candidates]
    expects: str
    suppress: bool = True
    every_class: bool = True
    confidence: float = 0.25
    iou: float = 0.45


_YOLO8 = Decoder(
    grids.yolov8,
    "(1, 4 + C, N) decoded, or maps (1, 64 + C, H, W) or, of each stride, "
    "(1, 64, H, W) and (1, C, H, W)",
)
TABLE: dict[str, Decoder] = {
    "yolox": Decoder(grids.yolox, "(1, N, 5 + C), or maps (1, 5 + C, H, W)", every_class=False),
    "yolov5": Decoder(
        grids.yolov5,
        "(1, 3 N, 5 + C) decoded, or maps (1, 3 (5 + C), H, W) or (1, 3, H, W, 5 + C)",
    ),
    "yolov8": _YOLO8,
    "yolo11": _YOLO8,
    "fastestdet": Decoder(
        grids.fastestdet, "one map (1, 5 + C, H, W)", every_class=False, confidence=0.65
    ),
    "centernet": Decoder(
        grids.centernet,
        "maps (1, C, H, W) of heat, (1, 2, H, W) of size, (1, 2, H, W) of offset",
        suppress=False,
        confidence=0.3,
    ),
    "ssd": Decoder(sets.ssd, "(1, P, 4) and (1, P, 1 + C) of P priors"),
    "retinaface": Decoder(
        sets.retinaface,
        "(1, P, 4), (1, P, 2) and (1, P, 2 L) of P priors and L landmarks",
        confidence=0.6,
        iou=0.4,
    ),
    "ultraface": Decoder(
        sets.ultraface, "(1, P, 4) and (1, P, 2) of P priors", confidence=0.7, iou=0.3
    ),
    "detr": Decoder(
        sets.detr, "(1, Q, C) or (1, Q, C + 1), and (1, Q, 4), of Q queries", suppress=False,
        confidence=0.5,
    ),
    "end2end": Decoder(sets.end2end, "(1, K, 6)", suppress=False),
    "suppressed": Decoder(
        sets.in_file, "(1, K, 4), (1, K) and (1, K), or (1, K, 5) and (1, K)", suppress=False
    ),
}  # fmt: skip
