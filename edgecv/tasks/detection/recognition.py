"""Which decoder reads a graph's outputs: told by their shapes where one alone fits, else asked.

A count of rows says much: 3549 = 52^2 + 26^2 + 13^2 is a box for each cell of a 416 x 416 input
(YOLOX, YOLOv8), three times that is a box for each of three anchors (YOLOv5).

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgecv.errors import UnsupportedError
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection import places, published
from edgecv.tasks.detection.decoders import TABLE
from edgecv.tasks.detection.fits import FITS, STRIDES, Fields, Seen


def recognised(
    outputs: Sequence[TensorSpec],
    size: tuple[int, int],
    classes: int | None,
    said: Mapping[str, Any],
) -> Fields:
    """The fields of the DetectionTask that reads these outputs.

    said: without None. Raises UnsupportedError: as `Task.of_graph`.
    """
    seen = _without_others(Seen(_of_one_image(outputs), size, classes, said))
    word, fields = _said(seen) if "decoder" in said else _certain(seen)
    own = {"input": size, "confidence": TABLE[word].confidence, "iou": TABLE[word].iou}
    fields = {"outputs": seen.said.get("outputs") or ()} | fields
    told = {"outputs": fields["outputs"], "decoder": word}  # in the decoder's order
    return own | fields | dict(said) | told


def _without_others(seen: Seen) -> Seen:
    """The one output that is a detector's, where it alone fits, and with the classes that are
    known: YOLOv5's exports have what it was decoded from beside it."""
    words = [seen.said["decoder"]] if "decoder" in seen.said else list(FITS)
    if seen.classes is None or any(FITS[w](seen) is not None for w in words):
        return seen
    alone = [seen.only(o) for o in seen.outputs]
    fits = [a for a in alone if any(FITS[w](a) is not None for w in words)]
    return fits[0] if len(fits) == 1 else seen


def _said(seen: Seen) -> tuple[str, Fields]:
    """The decoder that was said and the fields that it has here. Raises UnsupportedError."""
    word = seen.said["decoder"]
    if (fields := FITS[word](seen)) is None:
        others = [w for w in FITS if FITS[w](seen) is not None]
        hint = "--decode strides=[8, 16, 32]? --decode anchors=...?"
        if len(seen.outputs) > 1:
            hint = f"which of them? --decode outputs=[{seen.outputs[0].name}, ...], in its order"
        hint = " or ".join(others) + " would fit" if others else hint
        what = f"{word} reads {_expected(word, seen)}, not {_told(seen)}"
        raise UnsupportedError("--decoder", what, hint)
    return word, fields


def _certain(seen: Seen) -> tuple[str, Fields]:
    """The only decoder that fits. Raises UnsupportedError."""
    words = [w for w in FITS if w != "yolo11"]  # it reads what yolov8 reads
    found = {w: f for w in words if (f := FITS[w](seen)) is not None}
    if len(found) > 1:
        hint = f"say --decoder {' or --decoder '.join(found)}"
        raise UnsupportedError("outputs", f"{_told(seen)} may be {' or '.join(found)}", hint)
    if not found and (others := _other_counts(seen, words)):
        told = " or ".join(f"{count} ({word})" for word, count in others.items())
        what = f"{_told(seen)}: they are of {told} classes"
        raise UnsupportedError("outputs", what, "give --labels with all of them, or --decoder")
    if not found:
        near = "; ".join(f"{w} reads {_expected(w, seen)}" for w in words if _alike(w, seen))
        what = f"{_told(seen)} are no detector's for certain"
        hint = f"say --decoder: {near or ', '.join(words)}"
        raise UnsupportedError("outputs", what, hint)
    return next(iter(found.items()))


def _other_counts(seen: Seen, words: Sequence[str]) -> dict[str, int]:
    """The decoders that fit with another count of classes than is known, and that count; none
    where one would fit the known count if it was said."""
    loose = [Seen(seen.outputs, seen.size, seen.classes, {**seen.said, "decoder": w})
             for w in words]  # fmt: skip
    if seen.classes is None or any(FITS[w](s) for w, s in zip(words, loose, strict=True)):
        return {}
    sides = {n for shape in seen.shapes for n in shape[1:]}
    counts = sorted({n - beside for n in sides for beside in (0, 1, 4, 5)} - {seen.classes})
    found: dict[str, int] = {}
    for count in (c for c in counts if c > 0):
        other = Seen(seen.outputs, seen.size, count, seen.said)
        found |= {w: count for w in words if w not in found and FITS[w](other) is not None}
    return found


def _of_one_image(outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Of one image, where all outputs are of a batch. Raises UnsupportedError: as many rows as
    proposals."""
    batches = {o.shape[0] if o.shape else 0 for o in outputs}
    batched = len(batches) == 1 and (batches == {1} or max(len(o.shape) for o in outputs) > 2)
    for o in outputs:
        if not batched or not all(isinstance(n, int) and n > 0 for n in o.shape):
            what = f"{o.name} is {_shape(o.shape)}: rows of proposals, not of one image"
            hint = "two-stage networks are not read; their count of boxes changes with the image"
            raise UnsupportedError("outputs", what, hint)
    return [replace(o, shape=(1, *o.shape[1:])) for o in outputs]


def _alike(word: str, seen: Seen) -> bool:
    """Whether a decoder reads tensors of as many axes as there are."""
    flat = re.sub(r"\d \([^()]*\)", "rows", TABLE[word].expects)  # 3 (5 + C)
    axes = {shape.count(",") + 1 for shape in re.findall(r"\(([^()]*)\)", flat)}
    found = {len(shape) for shape in seen.shapes}
    return found <= axes and max(found) > 2


def _told(seen: Seen) -> str:
    shapes = ", ".join(f"{o.name} {_shape(o.shape)}" for o in seen.outputs)
    high, wide = seen.size
    known = "" if seen.classes is None else f" and {seen.classes} classes"
    return f"{shapes} of an input of {high}x{wide}{known}"


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"


def _expected(word: str, seen: Seen) -> str:
    """What shapes a decoder reads, with the counts that are known here."""
    expects, strides = TABLE[word].expects, tuple(seen.said.get("strides") or STRIDES[0])
    counts = {"C": seen.classes, "N": places.count(seen.size, strides)}
    if word == "ultraface":
        counts["P"] = places.count(seen.size, *published.ULTRAFACE)
    told = [f"{k} = {v}" for k, v in counts.items() if v and re.search(rf"\b{k}\b", expects)]
    return expects + (f" with {', '.join(told)}" if told else "")
