"""Detection: which objects are on an image, and where.

    decode      boxes and scores of what reaches `confidence`       (`decoders`, one a kind of head)
    suppress    of boxes of one class that overlap, the best one                    (`suppression`)
    place back  x of the image = (x of the input - offset_x) / scale_x, clipped to the image

A row of a head that says NaN is dropped and counted. A deployed network gives each place its best
class; where answers are judged, every class of a place that reaches the confidence is an answer, or
the best one only, as the head's own repository evaluates it (`decoders.TABLE`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from edgecv.errors import BundleError, RecipeError, UnsupportedError, one_line
from edgecv.runtime.answers import Detection
from edgecv.runtime.placement import Placement
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.base import Difference, Outputs, Parts, Score, Task
from edgecv.tasks.detection.candidates import Asked, Candidates
from edgecv.tasks.detection.decoders import TABLE
from edgecv.tasks.detection.recognition import recognised
from edgecv.tasks.detection.suppression import best, suppressed

if TYPE_CHECKING:
    import torch

    from edgecv.data.annotations import Boxes
    from edgecv.methods.training.plan import Plan

__all__ = ["Detection", "DetectionTask", "Found"]

FORMS = ("xyxy", "cxcywh", "xywh", "yxyx", "cycxhw")
UNITS = ("pixels", "relative")
NMS = ("runtime", "graph")
ACTIVATIONS = ("none", "sigmoid", "softmax")
MOST_PIXELS = 1 << 16

# A field, what holds of its value (TypeError: it does not), and how that is said
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("decoder", lambda v: v in TABLE, f"one of {', '.join(TABLE)}"),
    ("input", lambda v: len(v) == 2 and all(map(_is_count, v)) and max(v) <= MOST_PIXELS,
     "height and width above 0"),
    ("outputs", lambda v: isinstance(v, tuple) and all(isinstance(n, str) for n in v), "names"),
    ("strides", lambda v: all(0 < s <= MOST_PIXELS for s in v), "pixels above 0"),
    ("anchors", lambda v: all(of_map and all(len(p) == 2 and min(p) > 0 and max(p) <= MOST_PIXELS
                              for p in of_map) for of_map in v), "lists of pairs above 0"),
    ("priors", lambda v: all(len(p) == 4 and min(p[2:]) > 0 and max(map(abs, p)) <= MOST_PIXELS
                             for p in v), "four numbers each, sizes above 0"),
    ("confidence", lambda v: 0 <= v <= 1, "0 to 1"),
    ("iou", lambda v: 0 <= v <= 1, "0 to 1"),
    ("max_detections", lambda v: _is_count(v), "a count above 0"),
    ("nms", lambda v: v in NMS, " or ".join(NMS)),
    ("agnostic", lambda v: type(v) is bool, "true or false"),
    ("form", lambda v: v in ("", *FORMS), " or ".join(FORMS)),
    ("unit", lambda v: v in ("", *UNITS), " or ".join(UNITS)),
    ("decoded", lambda v: v is None or type(v) is bool, "true or false"),
    ("activation", lambda v: v in ("", *ACTIVATIONS), " or ".join(ACTIVATIONS)),
    ("background", lambda v: v in (None, 0, -1), "0 or -1"),
    ("variances", lambda v: len(v) == 2 and all(0 < x <= MOST_PIXELS for x in v), "two above 0"),
)  # fmt: skip


class Found(NamedTuple):
    """What was found on one image, best first.

    boxes:     float32 (K, 4), (x0, y0, x1, y1) in pixels of the image, x1 > x0, y1 > y0
    scores:    float32 (K,), 0..1
    index:     int64 (K,), of the class
    landmarks: float32 (K, L, 2), (x, y) in pixels of the image; None where the head has none
    nan:       rows of the head that said NaN, dropped
    """

    boxes: np.ndarray
    scores: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    landmarks: np.ndarray | None = None
    nan: int = 0


@dataclass(frozen=True)
class DetectionTask(Task):
    """How a detector's outputs are read.

    decoder:        one of `decoders.TABLE`
    input:          (height, width) of the network's input in pixels
    outputs:        their names, in the decoder's order (maps: in the order of strides); without
                    them the network's own order
    strides:        input pixels a cell, of each map
    anchors:        of each map, (width, height) in input pixels of each box that a cell begins with
    priors:         of SSD and its kin: the boxes themselves, where strides and anchors do not make
                    them, as `form` and `unit` say (cxcywh; shares of the input where none is
                    above 2)
    confidence:     the least score, 0..1; in `of_graph` the decoder's own, mostly 0.25
    iou:            boxes of one class that overlap by more are one object, 0..1; mostly 0.45
    max_detections: the most on an image
    agnostic:       whether boxes of different classes suppress each other too
    nms:            who decodes and suppresses: "runtime", or "graph": the file itself, with these
                    thresholds (`in_graph`); a call may then ask for less, not for more
    form, unit:     how boxes are written where the file has decoded them, and of SSD what the
                    network says and its priors (TensorFlow's: cycxhw); "": as the decoder's own
                    repository writes them
    decoded:        whether the file has; None: told by the values, which are pixels there
    activation:     what makes scores of the file's values: "none", "sigmoid" or "softmax"; "":
                    none where all lie in 0..1, else the decoder's own
    background:     the column of scores that is no class: 0, or -1 for the last; None: all are
    variances:      of centre and size (SSD's)

    Raises ValueError: a value that it cannot have.
    """

    name: ClassVar[str] = "detection"
    metric: ClassVar[str] = "map50_95"
    points: ClassVar[str] = "mAP"
    truth: ClassVar[str] = "Boxes"
    asks: ClassVar[tuple[str, ...]] = ("confidence", "iou", "max_detections", "agnostic")
    figures: ClassVar[str] = (
        "AP50, AP75: at an overlap of 0.5, 0.75 with the object. AP small, medium, large: of "
        "objects below 32², up to 96², above 96² pixels of the picture. Precision and recall: at "
        "the bundle's own confidence and an overlap of 0.5, over all classes."
    )
    answers: ClassVar[str] = "boxes"

    decoder: str = ""
    input: tuple[int, int] = (0, 0)
    outputs: tuple[str, ...] = ()
    strides: tuple[float, ...] = ()
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    priors: tuple[tuple[float, float, float, float], ...] = ()
    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 100
    agnostic: bool = False
    nms: str = "runtime"
    form: str = ""
    unit: str = ""
    decoded: bool | None = None
    activation: str = ""
    background: int | None = None
    variances: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        for f in fields(self):  # JSON has no tuples
            object.__setattr__(self, f.name, _tuples(getattr(self, f.name)))
        for key, holds, rule in RULES:
            if not _holds(holds, value := getattr(self, key)):
                raise ValueError(f"decode.{key} {value!r} is wrong: {rule}")
        if self.anchors and self.strides and len(self.anchors) != len(self.strides):
            what = f"{len(self.anchors)} lists of {len(self.strides)} strides"
            raise ValueError(f"decode.anchors has {what}")

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],
        classes: int | None,
        said: Mapping[str, Any],
    ) -> DetectionTask:
        """`said`: any of the fields but input. Raises UnsupportedError, and RecipeError: a value
        that a field cannot have."""
        said = {k: v for k, v in said.items() if v is not None}
        try:
            cls.check(said)
            return cls(**recognised(outputs, size, classes, said))
        except ValueError as error:
            raise RecipeError("detection", str(error)) from None

    @classmethod
    def check(cls, said: Mapping[str, Any]) -> None:
        super().check({"decoder": next(iter(TABLE)), "input": (1, 1), **said})

    # --- on devices too

    def read(self, outputs: Outputs, lies: Placement, size: tuple[int, int], **asked: Any) -> Found:
        """asked: confidence, iou, max_detections, agnostic, and every_class: whether a place
        answers with every class that reaches the confidence. Raises RecipeError: a value that
        cannot be; TypeError: a key that is none of these; BundleError: outputs of other shapes."""
        ask = Asked.of(self, asked)
        with np.errstate(all="ignore"):  # what overflows or is NaN is dropped, not told of
            head = TABLE[self.decoder]
            found = self._decoded(outputs, ask)
            sized = np.all(found.boxes[:, 2:] > found.boxes[:, :2], axis=1)
            if not sized.all():  # one of swapped corners has an area below 0, and covers all others
                found = found.some(sized)
            if head.suppress:
                kept = suppressed(found.boxes, found.scores, found.index, ask)
            else:
                kept = best(found.scores, ask.most)
            return _placed(found.some(kept), lies, size)

    def _decoded(self, outputs: Outputs, ask: Asked) -> Candidates:
        try:
            arrays = [outputs[name] for name in self.outputs or outputs]
            return TABLE[self.decoder].decode(arrays, self, ask)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in outputs.items())
            what = f"{self.decoder} does not read {shapes}: {one_line(error)}"
            raise BundleError("decode", what, "the manifest is of other outputs") from error

    def answer(self, read: Found, labels: Sequence[str]) -> list[Detection]:
        """Best first."""
        rows = zip(read.index.tolist(), read.scores.tolist(), read.boxes.tolist(), strict=True)
        return [
            Detection(i, labels[i] if i < len(labels) else str(i), score, tuple(box))
            for i, score, box in rows
        ]

    def to_json(self, read: Found, labels: Sequence[str]) -> list[dict[str, Any]]:
        """A list of {index, label, score, box}, and landmarks where the head has them."""
        found = [d._asdict() | {"box": list(d.box)} for d in self.answer(read, labels)]
        if read.landmarks is not None:
            for row, points in zip(found, read.landmarks.tolist(), strict=True):
                row["landmarks"] = points
        return found

    # --- on the host

    def asks_graph(self) -> bool:
        return self.nms == "graph" and self.decoder != "suppressed"

    def check_reads(
        self, outputs: Sequence[TensorSpec], images: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        from edgecv.tasks.detection.plausible import implausible, others

        if seen := implausible(self, images):
            fit = " or ".join(others(self, outputs))
            hint = f"by their shapes the outputs may be {fit}'s" if fit else "say another --decoder"
            raise UnsupportedError("--decoder", f"{self.decoder} reads {seen}", hint)

    def judging(self) -> Mapping[str, Any]:
        """Nearly everything that the network says, in the order of its scores, as COCO's metric
        wants it: confidence 0.001, the best 300 (YOLOv5's val.py). Overlap is judged as deployed.
        """
        head = TABLE[self.decoder]
        every = head.every_class and (head.suppress or self.background != -1)  # DETR's argmax
        return {"confidence": 0.001, "max_detections": 300, "every_class": every}

    def ready(self) -> None:
        from edgecv.tasks.detection import metric

        metric.library()

    def score(self, reads: Iterable[Any], truth: Any, classes: Sequence[str]) -> Score:
        from edgecv.tasks.detection import metric

        return metric.score(reads, truth, classes, self)

    def told_by(self, reads: Sequence[Found], sizes: Sequence[tuple[int, int]]) -> Boxes | None:
        """Boxes that reach the confidence of the decoder's own repository; where none does, the
        task's."""
        from edgecv.tasks.detection import metric

        own = TABLE[self.decoder].confidence
        return metric.told_by(reads, sizes, own) or metric.told_by(reads, sizes, self.confidence)

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        from edgecv.tasks.detection import metric

        return metric.difference(before, after, alpha)

    def interval(self, parts: Parts, alpha: float) -> tuple[float, float]:
        from edgecv.tasks import paired
        from edgecv.tasks.detection.metric import value_of

        return paired.interval(value_of, parts, int(parts["images"]), alpha)

    def same(self, before: Found, after: Found) -> tuple[int, int]:
        """Boxes that both find: of one class, with an overlap of SAME; and boxes in all."""
        from edgecv.tasks.detection.matching import of_one_class

        both = len(of_one_class(before, after))
        return both, len(before.boxes) + len(after.boxes) - both

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        from edgecv.tasks.detection import augment

        return augment.augmented(pixels, truths, plan, rng)

    def loss(self, outputs: Any, truths: Sequence[Any]) -> torch.Tensor:
        from edgecv.tasks.detection import loss

        return loss.loss(outputs, truths)

    def drawn(self, image: np.ndarray, read: Found, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.boxes(image, read, labels)


def _placed(found: Candidates, lies: Placement, size: tuple[int, int]) -> Found:
    """In pixels of the image, without what lies beside it."""
    offset = np.array(lies.offset[::-1], np.float32)  # x, y
    scale = np.array(lies.scale[::-1], np.float32)
    corners = (found.boxes.reshape(-1, 2, 2) - offset) / scale
    boxes = np.clip(corners, 0, np.array(size[::-1], np.float32)).reshape(-1, 4)
    on = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    points = found.landmarks
    if points is not None:
        points = ((points - offset) / scale)[on]
    return Found(boxes[on], found.scores[on], found.index[on], points, found.nan)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return rule(value)
    except TypeError:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
