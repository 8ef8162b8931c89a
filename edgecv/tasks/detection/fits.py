"""What each decoder fits: the fields of a DetectionTask that shapes tell; None: they do not fit.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgecv.errors import UnsupportedError
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection import places, published
from edgecv.tasks.detection.grids import REACH

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))  # of heads that give one array of all cells
MOST_QUERIES = 1000
Fields = dict[str, Any]


class Seen:
    """A graph's outputs, and what is known beside them.

    certain: whether a fit has to be certain, for nobody said the decoder
    """

    def __init__(
        self,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],
        classes: int | None,
        said: Mapping[str, Any],
    ) -> None:
        if names := said.get("outputs"):
            by_name = {o.name: o for o in outputs}
            if missing := [n for n in names if n not in by_name]:
                what = f"has no output {missing[0]!r}, but {', '.join(by_name)}"
                raise UnsupportedError("the network", what)
            outputs = [by_name[n] for n in names]
        self.outputs, self.size, self.classes, self.said = list(outputs), size, classes, said
        self.shapes = [tuple(o.shape) for o in outputs]
        self.certain = not said.get("decoder")

    def only(self, output: TensorSpec) -> Seen:
        """The same of one output."""
        return Seen(self.outputs, self.size, self.classes, {**self.said, "outputs": [output.name]})

    def with_classes(self, channels: int, beside: int) -> bool:
        """Whether that many channels are `beside` others and the classes."""
        return channels > beside and self.classes in (None, channels - beside)

    def strides_of_rows(self, rows: int) -> tuple[float, ...] | None:
        """Of maps that have that many cells together."""
        tried = [tuple(self.said["strides"])] if self.said.get("strides") else STRIDES
        return next((s for s in tried if places.count(self.size, s) == rows), None)

    def strides_of_maps(self, maps: Sequence[tuple[int, int]]) -> tuple[float, ...] | None:
        """Of maps of (rows, columns), finest first; None: they do not divide the input so."""
        said = tuple(self.said.get("strides") or ())
        strides = said if len(said) == len(maps) else tuple(map(self._stride, maps))
        return strides if places.cells(self.size, strides) == tuple(maps) else None

    def _stride(self, cells: tuple[int, int]) -> float:
        """The power of two that makes as many cells of the input, where one does."""
        powers = (2**k for k in range(10))
        own = (s for s in powers if places.cells(self.size, (s,)) == (cells,))
        return next(own, self.size[0] / cells[0])

    def named(self, pattern: str) -> list[TensorSpec]:
        return [o for o in self.outputs if re.search(pattern, o.name, re.IGNORECASE)]


def _rows(seen: Seen) -> tuple[int, int] | None:
    """(N, channels) of a single output (1, N, channels)."""
    if len(seen.shapes) == 1 and len(seen.shapes[0]) == 3:
        return seen.shapes[0][1], seen.shapes[0][2]
    return None


def _maps(seen: Seen, ranks: tuple[int, ...] = (4,)) -> list[TensorSpec]:
    """Outputs that are all maps, finest first; else none."""
    if not seen.outputs or any(len(s) not in ranks for s in seen.shapes):
        return []
    return sorted(seen.outputs, key=lambda o: -_cells(o)[0])


def _cells(spec: TensorSpec) -> tuple[int, int]:
    """(rows, columns) of a map, (1, C, H, W) or (1, A, H, W, C)."""
    return (spec.shape[2], spec.shape[3])


def _of_maps(seen: Seen, maps: Sequence[TensorSpec]) -> Fields | None:
    strides = seen.strides_of_maps([_cells(m) for m in maps])
    return {"strides": strides, "outputs": tuple(m.name for m in maps)} if strides else None


def _yolox(seen: Seen) -> Fields | None:
    if rows := _rows(seen):
        strides = seen.strides_of_rows(rows[0])
        return {"strides": strides} if strides and seen.with_classes(rows[1], 5) else None
    maps = _maps(seen)
    if seen.certain and (seen.classes is None or len(maps) < 2):
        return None
    fits = maps and all(seen.with_classes(m.shape[1], 5) for m in maps)
    return _of_maps(seen, maps) if fits else None


def _yolov5(seen: Seen) -> Fields | None:
    anchors = seen.said.get("anchors")
    each = len(anchors[0]) if anchors else 3
    if rows := _rows(seen):
        strides = seen.strides_of_rows(rows[0] // each) if rows[0] % each == 0 else None
        return {"strides": strides} if strides and seen.with_classes(rows[1], 5) else None
    if seen.certain and not anchors:
        return None  # sets of their own have anchors of their own
    maps = _maps(seen, (4, 5))
    for m in maps:
        channels = m.shape[1] if len(m.shape) == 4 else m.shape[1] * m.shape[4]
        whole = m.shape[1] == each if len(m.shape) == 5 else channels % each == 0
        if not (whole and seen.with_classes(channels // each, 5)):
            return None
    fields = _of_maps(seen, maps) if maps else None
    if not fields:
        return None
    own = {len(p.strides): p.anchors for p in published.YOLOV5}.get(len(maps))
    return fields | {"anchors": anchors or own} if anchors or own else None


def _yolov8(seen: Seen) -> Fields | None:
    if len(seen.shapes) == 1 and len(seen.shapes[0]) == 3:
        _, first, second = seen.shapes[0]
        if (strides := seen.strides_of_rows(second)) and seen.with_classes(first, 4):
            return {"strides": strides}
        sure = seen.classes is not None or not seen.certain
        if sure and (strides := seen.strides_of_rows(first)) and seen.with_classes(second, 4):
            return {"strides": strides}
        return None
    if seen.certain and seen.classes is None:
        return None
    maps = _maps(seen)
    if maps and all(seen.with_classes(m.shape[1], 4 * REACH) for m in maps):
        return _of_maps(seen, maps)
    sides = [m for m in maps if m.shape[1] == 4 * REACH]
    classes = [m for m in maps if m.shape[1] != 4 * REACH and seen.with_classes(m.shape[1], 0)]
    if not sides or len(sides) != len(classes) or len(maps) != 2 * len(sides):
        return None
    if [_cells(m) for m in sides] != [_cells(m) for m in classes]:
        return None
    fields = _of_maps(seen, sides)
    names = tuple(m.name for pair in zip(sides, classes, strict=True) for m in pair)
    return fields and fields | {"outputs": names}


def _fastestdet(seen: Seen) -> Fields | None:
    maps = _maps(seen)
    if len(maps) != 1 or not seen.with_classes(maps[0].shape[1], 5):
        return None
    strides = seen.strides_of_maps([_cells(maps[0])])
    return {"strides": strides} if strides and (strides == (16,) or not seen.certain) else None


def _centernet(seen: Seen) -> Fields | None:
    maps = _maps(seen)
    if len(maps) != 3 or len({_cells(m) for m in maps}) != 1:
        return None
    size, offset = seen.named(r"wh|size"), seen.named(r"reg|off")
    if seen.said.get("outputs"):
        heat, *others = seen.outputs
    elif len(size) == 1 and len(offset) == 1 and size != offset:
        others = [*size, *offset]
        (heat,) = (m for m in maps if m not in others)
    else:
        return None
    if not seen.with_classes(heat.shape[1], 0) or any(m.shape[1] != 2 for m in others):
        return None
    strides = seen.strides_of_maps([_cells(heat)])
    names = tuple(m.name for m in (heat, *others))
    return {"strides": strides, "outputs": names} if strides else None


def _columns(seen: Seen, count: int, at: int = 0) -> tuple[TensorSpec, list[TensorSpec]] | None:
    """The boxes and the other outputs of as many (1, P, columns); at: the boxes' place where the
    order is said."""
    if len(seen.shapes) != count or any(len(s) != 3 for s in seen.shapes):
        return None
    boxes = [o for o in seen.outputs if o.shape[2] == 4]
    if len(boxes) > 1:  # of four columns of scores
        named = seen.named(r"box|loc|reg")
        boxes = [seen.outputs[at]] if seen.said.get("outputs") else named
    if len(boxes) != 1 or boxes[0].shape[2] != 4 or len({s[1] for s in seen.shapes}) != 1:
        return None
    return boxes[0], [o for o in seen.outputs if o != boxes[0]]


def _with_priors(seen: Seen, rows: int, own: published.Priors | None) -> Fields | None:
    """The priors of as many rows: said, or their strides and anchors, said or published."""
    if said := seen.said.get("priors"):
        return {} if len(said) == rows else None
    if seen.said.get("anchors") and seen.said.get("strides"):
        own = published.Priors(tuple(seen.said["strides"]), tuple(seen.said["anchors"]))
    if own is None or len(own.strides) != len(own.anchors) or places.count(seen.size, *own) != rows:
        return None
    return {"strides": own.strides, "anchors": own.anchors}


def _ssd(seen: Seen) -> Fields | None:
    if not (found := _columns(seen, 2)):
        return None
    boxes, (scores,) = found
    rows, side = boxes.shape[1], seen.size[0] if seen.size[0] == seen.size[1] else 0
    fields = _with_priors(seen, rows, published.SSD.get(side))
    if fields is None and (fields := _with_priors(seen, rows, published.TENSORFLOW.get(side))):
        fields |= {"form": "cycxhw"}
    if fields is None or not seen.with_classes(scores.shape[2], 1):
        return None
    return fields | {"outputs": (boxes.name, scores.name), "background": 0}


def _retinaface(seen: Seen) -> Fields | None:
    if not (found := _columns(seen, 3)):
        return None
    boxes, others = found
    scores = [o for o in others if o.shape[2] == 2]
    points = [o for o in others if o.shape[2] != 2 and o.shape[2] % 2 == 0]
    fields = _with_priors(seen, boxes.shape[1], published.RETINAFACE)
    if fields is None or len(scores) != 1 or len(points) != 1 or seen.classes not in (None, 1):
        return None
    names = tuple(o.name for o in (boxes, *scores, *points))
    return fields | {"outputs": names, "background": 0}


def _ultraface(seen: Seen) -> Fields | None:
    if not (found := _columns(seen, 2)):
        return None
    boxes, (scores,) = found
    counted = places.count(seen.size, *published.ULTRAFACE) == boxes.shape[1]
    if scores.shape[2] != 2 or seen.classes not in (None, 1) or not (counted or not seen.certain):
        return None
    return {"outputs": (boxes.name, scores.name), "background": 0}


def _detr(seen: Seen) -> Fields | None:
    if not (found := _columns(seen, 2, at=1)):
        return None
    boxes, (logits,) = found
    columns, queries = logits.shape[2], boxes.shape[1]
    with_priors = seen.said.get("anchors") or seen.said.get("priors")
    if seen.certain and (queries > MOST_QUERIES or with_priors):
        return None
    if "background" not in seen.said and seen.classes not in (columns, columns - 1):
        return None  # a column too many is "no object"
    names = (logits.name, boxes.name)
    return {"outputs": names, "background": None if seen.classes == columns else -1}


def _end2end(seen: Seen) -> Fields | None:
    rows = _rows(seen)
    if rows is None or rows[1] != 6:
        return None
    # a round count, as it is chosen by hand, unlike one of cells (YOLOX of a single class)
    likely = rows[0] <= MOST_QUERIES and (rows[0] % 100 == 0 or not seen.strides_of_rows(rows[0]))
    return {} if likely or not seen.certain else None


def _suppressed(seen: Seen) -> Fields | None:
    boxes = [o for o in seen.outputs if len(o.shape) == 3 and o.shape[2] in (4, 5)]
    if len(boxes) != 1:
        return None
    rows = boxes[0].shape[1]
    others = [o for o in seen.outputs if o != boxes[0]]
    columns = [o for o in others if o.shape in ((1, rows), (1, rows, 1))]
    counts = [o for o in others if o not in columns and max(o.shape) == 1]
    if len(columns) + len(counts) != len(others) or len(counts) > 1:
        return None
    if boxes[0].shape[2] == 5:
        if len(columns) != 1 or counts:
            return None
        return {"outputs": (boxes[0].name, columns[0].name)}
    order = columns if seen.said.get("outputs") else _scores_first(seen, columns)
    if len(columns) != 2 or not order:
        return None
    fields: Fields = {"outputs": tuple(o.name for o in (boxes[0], *order, *counts))}
    if re.search("detection_boxes|TFLite_Detection", boxes[0].name):  # TensorFlow's own way
        fields |= {"form": "yxyx", "unit": "relative"}
    return fields


def _scores_first(seen: Seen, columns: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The scores and the classes, told by their types or names; none where those do not tell."""
    whole = [o for o in columns if o.dtype.startswith(("int", "uint")) and o.scale is None]
    named = [o for o in columns if o in seen.named(r"class|label|categor|\bids?\b")]
    for classes in (whole, named):
        if len(classes) == 1:
            return [*(o for o in columns if o != classes[0]), classes[0]]
    return []


FITS: dict[str, Callable[[Seen], Fields | None]] = {
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolo11": _yolov8,
    "fastestdet": _fastestdet,
    "centernet": _centernet,
    "ssd": _ssd,
    "retinaface": _retinaface,
    "ultraface": _ultraface,
    "detr": _detr,
    "end2end": _end2end,
    "suppressed": _suppressed,
}
