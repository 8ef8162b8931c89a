"""Decoding and class-wise suppression as ONNX nodes behind a detector's outputs (`nms: graph`).

    heads    a decoder's equation: boxes (1, N, 4) in pixels of the input, scores (1, N, C)
    tail     each place's best class, NonMaxSuppression class by class, the best in their order,
             padded to `max_detections`: boxes (1, K, 4), scores (1, K), classes (1, K)

They are the runtime's own steps in the runtime's own order (`grids`, `sets`, `suppression`): a box
at the threshold stays, equal scores come in the order of their places, a row that says NaN is
dropped. An empty row has class -1 and score 0. Host only: imports onnx when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.tasks.detection import grids, places, sets
from edgecv.tasks.detection.candidates import activation, pixels
from edgecv.tasks.detection.nodes import Nodes

if TYPE_CHECKING:
    from edgecv.tasks.detection import DetectionTask

ENDS = ("boxes", "scores", "classes")
OLDEST = 13  # opset whose operators are written here
Shapes = Sequence[tuple[int, ...]]
Head = Callable[[Nodes, Sequence[str], Shapes, "DetectionTask"], tuple[str, str]]


def attached(model: Any, answers: Sequence[Mapping[str, np.ndarray]], task: DetectionTask) -> Any:
    """The task that reads what the model, changed in place, then answers.

    model:   onnx.ModelProto whose outputs are those of `answers`
    answers: of some images, by output; what only values tell (`settled`) is told by them
    Raises UnsupportedError: a decoder without nodes of its own, several images a call, or values
    that disagree.
    """
    if task.decoder not in HEADS:
        what = f"{task.decoder} has no nodes: there are {', '.join(HEADS)}"
        raise UnsupportedError("--nms", what, "leave it out: the runtime reads its outputs")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        what = f"the file is of opset {opset}, nodes are written for {OLDEST} and later"
        raise UnsupportedError("--nms", what, "export it again with opset 18")
    names = task.outputs or tuple(answers[0])
    if (batch := len(answers[0][names[0]])) != 1:
        what = f"the file takes {batch} images a call, nodes are written for 1"
        raise UnsupportedError("--nms", what, "export it with a batch of 1, or leave it out")
    task = settled(task, [[a[name] for name in names] for a in answers])
    nodes = Nodes(model)
    shapes = [answers[0][name].shape for name in names]
    head = HEADS[task.decoder](nodes, [nodes.floats(n) for n in names], shapes, task)
    ends = _tail(nodes, *head, *_counts(task, shapes), task)
    nodes.end(dict(zip(ends, ((1, task.max_detections, 4), *[(1, task.max_detections)] * 2),
                       strict=True)))  # fmt: skip
    return replace(
        task, decoder="suppressed", outputs=ends, form="xyxy", unit="pixels", strides=(),
        anchors=(), priors=(), decoded=None, activation="", background=None,
    )  # fmt: skip


def settled(task: DetectionTask, answers: Sequence[Sequence[np.ndarray]]) -> DetectionTask:
    """The task with what the runtime tells by the values of each image. Raises UnsupportedError:
    images tell otherwise."""
    found = {tuple(_told(task, arrays).items()) for arrays in answers}
    if len(found) > 1:
        said = " or ".join(", ".join(f"{k} {v}" for k, v in one) for one in sorted(found, key=str))
        raise UnsupportedError("--nms", f"by their values, outputs are of {said}", "say which")
    return replace(task, **dict(found.pop()))


def _told(task: DetectionTask, arrays: Sequence[np.ndarray]) -> dict[str, Any]:
    word, rows = task.decoder, arrays[0].ndim == 3
    if word == "fastestdet":
        return {}
    if word in ("ssd", "ultraface"):
        return {"activation": activation(arrays[1][0], task, sets.ssd_scores(task))}
    if word == "yolox":
        head = grids.rows_of(arrays)
        own: dict[str, Any] = {"decoded": grids.is_decoded(head, task)}
        return own | {"activation": activation(head[:, 4], task, "sigmoid")}
    if word == "yolov5":
        head = arrays[0][0] if rows else np.concatenate([
            grids.of_anchors(m, len(a)) for m, a in zip(arrays, task.anchors, strict=True)
        ])  # fmt: skip
        own = {"unit": task.unit or grids.unit(head, task)} if rows else {}
        return own | {"activation": activation(head[:, 4], task, "sigmoid")}
    if rows:
        head = _upright(arrays[0][0], task)
        own = {"unit": task.unit or grids.unit(head, task)}
        return own | {"activation": activation(head[:, 4:], task, "sigmoid")}
    joined = len(arrays) == len(task.strides)
    classes = grids.rows_of(arrays)[:, 4 * grids.REACH :] if joined else grids.rows_of(arrays[1::2])
    return {"activation": activation(classes, task, "sigmoid")}


def _upright(head: np.ndarray, task: DetectionTask) -> np.ndarray:
    return head.T if head.shape[1] == places.count(task.input, task.strides) else head


# --- heads


def _yolox(n: Nodes, names: Sequence[str], shapes: Shapes, task: DetectionTask) -> tuple[str, str]:
    head = n.rows(names, shapes)
    t, scores = n.columns(head, 0, 4), _of_objects(n, head, task)
    if task.decoded:
        return _corners(n, t, task, "cxcywh", "pixels"), scores
    place, step = (n.constant(v[None]) for v in places.grid(task.input, task.strides))
    centre = n.add("Mul", n.add("Add", n.columns(t, 0, 2), place), step)
    return _about(n, centre, n.add("Mul", n.add("Exp", n.columns(t, 2, 4)), step)), scores


def _yolov5(n: Nodes, names: Sequence[str], shapes: Shapes, task: DetectionTask) -> tuple[str, str]:
    if len(shapes[0]) == 3:
        own = _corners(n, n.columns(names[0], 0, 4), task, "cxcywh", task.unit)
        return own, _of_objects(n, names[0], task)
    maps = []
    for name, shape, of_map in zip(names, shapes, task.anchors, strict=True):
        each, high, wide = len(of_map), *(shape[2:] if len(shape) == 4 else shape[2:4])
        if len(shape) == 4:
            apart = n.add("Reshape", name, n.ints(1, each, -1, high * wide))
            name = n.add("Transpose", apart, perm=[0, 1, 3, 2])
        maps.append(n.add("Reshape", name, n.ints(1, each * high * wide, _channels(shape, each))))
    head = n.add("Concat", *maps, axis=1)
    t = n.columns(head, 0, 4)
    if task.activation == "sigmoid":
        t = n.add("Sigmoid", t)
    t = n.add("Mul", t, n.constant(2.0))
    grid = places.anchor_grid(task.input, task.strides, task.anchors)
    place, step, anchor = (n.constant(v[None]) for v in grid)
    centre = n.add("Add", n.add("Sub", n.columns(t, 0, 2), n.constant(0.5)), place)
    size = n.columns(t, 2, 4)
    size = n.add("Mul", n.add("Mul", size, size), anchor)
    return _about(n, n.add("Mul", centre, step), size), _of_objects(n, head, task)


def _yolov8(n: Nodes, names: Sequence[str], shapes: Shapes, task: DetectionTask) -> tuple[str, str]:
    count = places.count(task.input, task.strides)
    if len(shapes[0]) == 3:
        head = n.add("Transpose", names[0], perm=[0, 2, 1]) if shapes[0][2] == count else names[0]
        boxes = _corners(n, n.columns(head, 0, 4), task, "cxcywh", task.unit)
        return boxes, _activated(n, n.columns(head, 4), task)
    if len(names) == len(task.strides):
        head, reach = n.rows(names, shapes), grids.REACH
        sides, classes = n.columns(head, 0, 4 * reach), n.columns(head, 4 * reach)
    else:
        sides, classes = n.rows(names[0::2], shapes[0::2]), n.rows(names[1::2], shapes[1::2])
        reach = shapes[0][1] // 4
    share = n.add("Softmax", n.add("Reshape", sides, n.ints(1, count, 4, reach)), axis=3)
    steps = n.constant(np.arange(reach, dtype=np.float32)[:, None])
    d = n.add("Reshape", n.add("MatMul", share, steps), n.ints(1, count, 4))
    place, step = places.grid(task.input, task.strides)
    middle, by = n.constant(place[None] + np.float32(0.5)), n.constant(step[None])
    ends = n.add("Sub", middle, n.columns(d, 0, 2)), n.add("Add", middle, n.columns(d, 2, 4))
    return n.add("Mul", n.add("Concat", *ends, axis=2), by), _activated(n, classes, task)


def _fastestdet(
    n: Nodes, names: Sequence[str], shapes: Shapes, task: DetectionTask
) -> tuple[str, str]:
    head, none = n.rows(names, shapes), n.constant(0.0)
    objectness, classes = (
        n.add("Pow", n.add("Max", part, none), n.constant(by))
        for part, by in ((n.columns(head, 0, 1), 0.6), (n.columns(head, 5), 0.4))
    )
    high, wide = shapes[0][2:]
    place, _ = places.grid((high, wide), (1,))
    centre = n.add("Add", n.constant(place[None]), n.add("Tanh", n.columns(head, 1, 3)))
    centre = n.add("Div", centre, n.constant(np.array([wide, high], np.float32)))
    boxes = _about(n, centre, n.add("Sigmoid", n.columns(head, 3, 5)))
    scale = n.constant(pixels(task, "relative"))
    return n.add("Mul", boxes, scale), n.add("Mul", classes, objectness)


def _ssd(n: Nodes, names: Sequence[str], shapes: Shapes, task: DetectionTask) -> tuple[str, str]:
    prior = sets.priors_of(shapes[0][1], task)[None]
    t = names[0]
    if task.form == "cycxhw":
        t = n.add("Gather", t, n.ints(1, 0, 3, 2), axis=2)
    centre, size = n.constant(prior[..., :2]), n.constant(prior[..., 2:])
    v = [n.constant(np.float32(variance)) for variance in task.variances]
    moved = n.add("Mul", n.add("Mul", n.columns(t, 0, 2), v[0]), size)
    grown = n.add("Mul", size, n.add("Exp", n.add("Mul", n.columns(t, 2, 4), v[1])))
    return _about(n, n.add("Add", centre, moved), grown), _activated(n, names[1], task)


def _ultraface(n: Nodes, names: Sequence[str], _: Shapes, task: DetectionTask) -> tuple[str, str]:
    return _corners(n, names[0], task, "xyxy", "relative"), _activated(n, names[1], task)


HEADS: dict[str, Head] = {
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolo11": _yolov8,
    "fastestdet": _fastestdet,
    "ssd": _ssd,
    "ultraface": _ultraface,
}


def _counts(task: DetectionTask, shapes: Shapes) -> tuple[int, int]:
    """(N, C) of what a head gives."""
    word, first, rows = task.decoder, shapes[0], len(shapes[0]) == 3
    if word in ("ssd", "ultraface"):
        return shapes[1][1], shapes[1][2] - (task.background is not None)
    if word == "yolov5" and not rows:
        channels = _channels(first, len(task.anchors[0]))
        return places.count(task.input, task.strides, task.anchors), channels - 5
    if word in ("yolov8", "yolo11"):
        count = places.count(task.input, task.strides)
        if rows:
            return count, (first[1] if first[2] == count else first[2]) - 4
        joined = len(shapes) == len(task.strides)
        return count, first[1] - 4 * grids.REACH if joined else shapes[1][1]
    return (first[1], first[2] - 5) if rows else (sum(s[2] * s[3] for s in shapes), first[1] - 5)


def _channels(shape: tuple[int, ...], each: int) -> int:
    return shape[4] if len(shape) == 5 else shape[1] // each


def _of_objects(n: Nodes, head: str, task: DetectionTask) -> str:
    """objectness * class of rows (box, objectness, classes)."""
    likely = n.columns(head, 4)
    if task.activation == "sigmoid":
        likely = n.add("Sigmoid", likely)
    return n.add("Mul", n.columns(likely, 1), n.columns(likely, 0, 1))


def _activated(n: Nodes, values: str, task: DetectionTask) -> str:
    """Scores of class values, without the background's."""
    if task.activation == "softmax":
        values = n.add("Softmax", values, axis=2)
    elif task.activation == "sigmoid":
        values = n.add("Sigmoid", values)
    if task.background is None:
        return values
    return n.columns(values, 1) if task.background == 0 else n.columns(values, 0, -1)


def _about(n: Nodes, centre: str, size: str) -> str:
    half = n.add("Div", size, n.constant(2.0))
    ends = n.add("Sub", centre, half), n.add("Add", centre, half)
    return n.add("Concat", *ends, axis=2)


def _corners(n: Nodes, boxes: str, task: DetectionTask, form: str, unit: str) -> str:
    """As `candidates.corners`."""
    form, unit = task.form or form, task.unit or unit
    if form in ("yxyx", "cycxhw"):
        boxes = n.add("Gather", boxes, n.ints(1, 0, 3, 2), axis=2)
    first, second = n.columns(boxes, 0, 2), n.columns(boxes, 2, 4)
    if form in ("cxcywh", "cycxhw"):
        boxes = _about(n, first, second)
    elif form == "xywh":
        boxes = n.add("Concat", first, n.add("Add", first, second), axis=2)
    return n.add("Mul", boxes, n.constant(pixels(task, unit)))


# --- tail


def _tail(
    n: Nodes, boxes: str, scores: str, count: int, classes: int, task: DetectionTask
) -> tuple[str, ...]:
    """Names of `ENDS`."""
    most = task.max_detections
    index = n.add("ArgMax", scores, axis=2, keepdims=1)
    best = n.add("GatherElements", scores, index, axis=2)
    sized = n.add("Sub", n.columns(boxes, 2, 4), n.columns(boxes, 0, 2))
    lost = n.add("Or", n.any_nan(boxes), n.any_nan(scores))
    lost = n.add("Or", lost, n.any_below(sized, 0.0))
    best = n.add("Reshape", n.add("Where", lost, n.constant(-1.0), best), n.ints(1, 1, count))
    offered = best
    if not task.agnostic:
        own = n.add("Equal", n.add("Reshape", index, n.ints(1, 1, count)),
                    n.constant(np.arange(classes)[None, :, None]))  # fmt: skip
        offered = n.add("Where", own, best, n.constant(-1.0))
    least = np.nextafter(np.float32(task.confidence), np.float32(-1))  # the node's must be beaten
    kept = n.add("NonMaxSuppression", boxes, offered, n.ints(most),
                 n.constant(np.array([task.iou], np.float32)), n.constant(least[None]))  # fmt: skip
    # rows in their order, and after them one that holds nothing, as often as there may be boxes
    rows = n.add("Cast", n.add("Gather", kept, n.ints(2), axis=1), to=1)
    rows = n.add("Reshape", rows, n.ints(-1))
    rows = n.add("Concat", rows, n.constant(np.full(most, count, np.float32)), axis=0)
    rows = n.add("TopK", rows, n.add("Shape", rows), axis=0, largest=0, sorted=1, outputs=2)
    rows = n.add("Cast", rows, to=7)
    flat = n.add("Reshape", best, n.ints(count))
    held = n.add("Concat", flat, n.constant(np.array([-1.0], np.float32)), axis=0)
    top, at = n.both("TopK", n.add("Gather", held, rows), n.ints(most), axis=0)
    rows = n.add("Gather", rows, at)
    labels = n.add("Cast", n.add("Reshape", index, n.ints(count)), to=1)
    labels = n.add("Concat", labels, n.constant(np.array([-1.0], np.float32)), axis=0)
    whole = n.add("Concat", boxes, n.constant(np.zeros((1, 1, 4), np.float32)), axis=1)
    return (
        n.add("Gather", whole, rows, axis=1, name=ENDS[0]),
        n.add("Reshape", n.add("Max", top, n.constant(0.0)), n.ints(1, most), name=ENDS[1]),
        n.add("Reshape", n.add("Gather", labels, rows), n.ints(1, most), name=ENDS[2]),
    )
