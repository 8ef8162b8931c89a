"""`build(seed)`: a random detector or segmentation network as an ONNX file, and how it is read.

Input of any multiple of 32, letterboxed or stretched; a trunk of random blocks; maps at random
strides; one of the heads that edgecv decodes, in one of the spellings that files have. The last
convolution is scaled and shifted so that some cells reach the confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.random_nets.onnx_blocks import BLOCKS, settle
from benchmarks.random_nets.onnx_nets import Writer
from benchmarks.random_nets.pictures import inputs, pictures

SIDES = (64, 64, 96, 128)
STRIDES = ((8, 16, 32), (8, 16, 32), (16, 32), (16,), (8,), (4, 8))
REACH = 16
DETECTORS = ("yolox", "yolox", "yolov5", "yolov8", "yolov8", "fastestdet", "centernet", "ssd",
             "ssd", "detr")  # fmt: skip
SEGMENTS = 0.3  # share of the networks


@dataclass
class Built:
    """task, decode, size, resize, pad_at: what `edgecv export` is told. kind: the head's spelling,
    with what `task_reading` needs of it in how."""

    model: Any
    task: str
    size: tuple[int, int]
    resize: str
    pad_at: str
    classes: int
    kind: str
    strides: tuple[int, ...] = ()
    decode: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)


class TaskWriter(Writer):
    """A writer whose pictures may be upright or wide."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.integers(11, 21))
        self.size = tuple(int(self.rng.choice(SIDES)) for _ in range(2))
        pixels, self.kinds = pictures(12, max(self.size), seed % 1000)
        h, w = self.size
        self.x, self.values = "input", {"input": inputs(pixels[:, :h, :w])}
        self.side_in, self.nodes, self.held = max(self.size), list[Any](), list[onnx.TensorProto]()
        self.batch, self.extras = 1, dict[str, np.ndarray]()

    def ended(self, outputs: Sequence[str], names: Sequence[str]) -> Any:
        """The file, whose outputs have these names."""
        renamed = dict(zip(outputs, names, strict=True))
        for node in self.nodes:
            for ends in (node.input, node.output):
                ends[:] = [renamed.get(n, n) for n in ends]
        given = [
            helper.make_tensor_value_info(
                renamed[n], helper.np_dtype_to_tensor_dtype(self.values[n].dtype),
                [1, *self.values[n].shape[1:]],
            )
            for n in outputs
        ]  # fmt: skip
        taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *self.size])]
        model = self._model(self.nodes, taken, given, self.held)
        onnx.checker.check_model(model)
        return model

    def part(self, x: str, start: int, end: int, axis: int) -> str:
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis))

    def out(self, x: str, mean: Any, std: Any) -> str:
        """A convolution whose channels have these means and spreads, (C,) each."""
        mean, std = np.broadcast_arrays(np.asarray(mean, float), np.asarray(std, float))
        k, c = int(self.rng.choice([1, 1, 3])), self.values[x].shape[1]
        weight = self.rng.normal(0, 1, (len(mean), c, k, k)).astype(np.float32)
        plain = self.add("Conv", x, self.constant(weight), pads=[k // 2] * 4)
        found = self.values[plain]
        by = std / np.maximum(found.std((0, 2, 3)), 1e-3)
        bias = mean - found.mean((0, 2, 3)) * by
        node = self.nodes.pop()
        self.held = [t for t in self.held if t.name != node.input[1]]
        self.nodes = [n for n in self.nodes if n.output[0] != node.input[1]]
        weight *= by[:, None, None, None].astype(np.float32)
        return self.add("Conv", x, self.constant(weight), self.constant(bias), pads=[k // 2] * 4)


def build(seed: int) -> Built:
    """The network of a seed; the same each time."""
    w = TaskWriter(seed)
    resize = str(w.rng.choice(["letterbox", "stretch"]))
    pad_at, classes = str(w.rng.choice(["centre", "corner"])), int(w.rng.integers(1, 9))
    segments = w.rng.random() < SEGMENTS
    kind = "segmentation" if segments else str(w.rng.choice(DETECTORS))
    strides = tuple(map(int, STRIDES[int(w.rng.integers(len(STRIDES)))]))
    if kind in ("fastestdet", "centernet", "detr"):
        strides = (16,) if kind == "fastestdet" else (int(w.rng.choice([4, 8, 16])),)
    if segments:
        strides = (int(w.rng.choice([1, 2, 4, 8])),)
    features = _features(w, strides)
    made = Built(None, "segmentation" if segments else "detection", w.size, resize, pad_at, classes,
                 kind, strides)  # fmt: skip
    if not segments:
        own = {"confidence": float(w.rng.choice([0.25, 0.3, 0.4])),
               "iou": float(w.rng.choice([0.3, 0.45, 0.6])),
               "max_detections": 300, "decoder": kind}  # fmt: skip
        made.decode = own
    HEADS[kind](w, features, strides, made)
    return made


def _features(w: TaskWriter, strides: Sequence[int]) -> list[str]:
    """A map of each stride, finest first."""
    found, stride, wide = {}, 1, int(w.rng.integers(8, 17))
    if 1 in strides:
        w.x = w.add("Conv", w.x, w.weight(wide, 3, 3, 3), pads=[1, 1, 1, 1])
        settle(w)
        found[1] = w.x
    while stride < max(strides):
        c = w.shape[0]
        k = 3 if w.rng.random() < 0.7 else 2
        w.x = w.add("Conv", w.x, w.weight(wide, c, k, k), strides=[2, 2], pads=[k // 3, k // 3] * 2)
        settle(w)
        stride *= 2
        for name in ("residual", "concat", "squeeze_excite", "reduced"):
            if w.rng.random() < 0.2:
                BLOCKS[name](w)
        found[stride] = w.x
        wide = min(32, wide + int(w.rng.integers(0, 9)))
    maps = [found[s] for s in strides]
    for k in reversed(range(len(maps) - 1)):  # from coarse to fine, as necks do
        if w.rng.random() < 0.5:
            maps[k] = _joined(w, maps[k], maps[k + 1])
    return maps


def _joined(w: TaskWriter, fine: str, coarse: str) -> str:
    scales = w.constant(np.array([1, 1, 2, 2], np.float32))
    none = w.constant(np.zeros(0)) if w.opset < 13 else ""
    up = w.add("Resize", coarse, none, scales, mode="nearest", nearest_mode="floor",
               coordinate_transformation_mode="asymmetric")  # fmt: skip
    if up and w.values[up].shape[2:] != w.values[fine].shape[2:]:
        return fine
    w.x = w.add("Concat", fine, up, axis=1)
    c, out = w.values[w.x].shape[1], w.values[fine].shape[1]
    w.x = w.add("Conv", w.x, w.weight(out, c, 1, 1))
    settle(w)
    return w.x


def _rows(w: TaskWriter, maps: Sequence[str]) -> str:
    """(N, cells, C)"""
    flat = [
        w.add("Transpose", w.add("Reshape", m, w.ints(0, w.values[m].shape[1], -1)), perm=[0, 2, 1])
        for m in maps
    ]
    return w.add("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]


def grid(size: tuple[int, int], strides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(cells, 2), column and row, and (cells, 1), the stride."""
    places, steps = [], []
    for s in strides:
        y, x = np.mgrid[: size[0] // s, : size[1] // s]
        places.append(np.stack([x.ravel(), y.ravel()], 1))
        steps.append(np.full((x.size, 1), s))
    return np.concatenate(places).astype(np.float32), np.concatenate(steps).astype(np.float32)


def _likely(w: TaskWriter, x: str, channels: int) -> str:
    return w.add("Sigmoid", w.part(x, channels, 1 << 30, w.values[x].ndim - 1))


def _yolox(w: TaskWriter, features: list[str], strides: Sequence[int], made: Built) -> None:
    mean = [0.5, 0.5, 0.9, 0.9, -1.0, *[0.5] * made.classes]
    std = [0.4, 0.4, 0.3, 0.3, 1.5, *[1.5] * made.classes]
    maps = [w.out(f, mean, std) for f in features]
    spelling = str(w.rng.choice(["maps", "rows", "decoded"]))
    made.how = {"spelling": spelling, "raw": spelling != "decoded" and w.rng.random() < 0.5}
    made.decode |= {"strides": list(strides)}
    if spelling == "maps":
        if not made.how["raw"]:
            maps = [
                w.add("Concat", w.part(m, 0, 4, 1),
                      w.add("Sigmoid", w.part(m, 4, 1 << 30, 1)), axis=1)
                for m in maps
            ]  # fmt: skip
        made.model = w.ended(maps, [f"map{k}" for k in range(len(maps))])
        return
    rows = _rows(w, maps)
    if not made.how["raw"]:
        boxes = w.part(rows, 0, 4, 2)
        if spelling == "decoded":
            place, step = map(w.constant, grid(w.size, strides))
            centre = w.add("Mul", w.add("Add", w.part(boxes, 0, 2, 2), place), step)
            size = w.add("Mul", w.add("Exp", w.part(boxes, 2, 4, 2)), step)
            boxes = w.add("Concat", centre, size, axis=2)
        rows = w.add("Concat", boxes, _likely(w, rows, 4), axis=2)
    made.model = w.ended([rows], ["rows"])


def _yolov5(w: TaskWriter, features: list[str], strides: Sequence[int], made: Built) -> None:
    each, channels = int(w.rng.integers(1, 4)), 5 + made.classes
    anchors = [[[float(s * w.rng.uniform(1, 4)), float(s * w.rng.uniform(1, 4))]
                for _ in range(each)] for s in strides]  # fmt: skip
    mean = np.tile([0.0, 0, 0, 0, -1.0, *[0.5] * made.classes], each)
    std = np.tile([0.5, 0.5, 0.3, 0.3, 1.5, *[1.5] * made.classes], each)
    maps = [w.out(f, mean, std) for f in features]
    made.how = {"anchors": anchors, "five": w.rng.random() < 0.5}
    made.decode |= {"strides": list(strides), "anchors": anchors}
    if made.how["five"]:
        maps = [
            w.add("Transpose", w.add("Reshape", m, w.ints(
                0, each, channels, *w.values[m].shape[2:])), perm=[0, 1, 3, 4, 2])
            for m in maps
        ]  # fmt: skip
    made.model = w.ended(maps, [f"map{k}" for k in range(len(maps))])


def _yolov8(w: TaskWriter, features: list[str], strides: Sequence[int], made: Built) -> None:
    spelling = str(w.rng.choice(["joined", "apart", "decoded"]))
    made.how, n = {"spelling": spelling}, made.classes
    made.decode |= {"strides": list(strides)}
    sides = [w.out(f, np.tile(-0.15 * np.arange(REACH), 4), [1.0] * 4 * REACH) for f in features]
    classes = [w.out(f, [-2.0] * n, [1.5] * n) for f in features]
    pairs = list(zip(sides, classes, strict=True))
    if spelling == "joined":
        maps = [w.add("Concat", *pair, axis=1) for pair in pairs]
        made.model = w.ended(maps, [f"map{k}" for k in range(len(maps))])
        return
    if spelling == "apart":
        flat = [m for pair in pairs for m in pair]
        made.model = w.ended(flat, [f"map{k}" for k in range(len(flat))])
        return
    t = _rows(w, sides)
    share = w.add("Softmax", w.add("Reshape", t, w.ints(0, -1, 4, REACH)), axis=3)
    d = w.add("MatMul", share, w.constant(np.arange(REACH)[:, None]))
    d = w.add("Reshape", d, w.ints(0, -1, 4))
    place, step = grid(w.size, strides)
    middle = w.constant(place + 0.5)
    low = w.add("Sub", middle, w.part(d, 0, 2, 2))
    high = w.add("Add", middle, w.part(d, 2, 4, 2))
    centre = w.add("Div", w.add("Add", low, high), w.constant(2.0))
    boxes = w.add("Concat", centre, w.add("Sub", high, low), axis=2)
    boxes = w.add("Mul", boxes, w.constant(step))
    rows = w.add("Concat", boxes, w.add("Sigmoid", _rows(w, classes)), axis=2)
    made.model = w.ended([w.add("Transpose", rows, perm=[0, 2, 1])], ["rows"])


def _fastestdet(w: TaskWriter, features: list[str], _: Sequence[int], made: Built) -> None:
    (x,), n = features, made.classes
    objectness = w.add("Sigmoid", w.out(x, [-0.5], [1.5]))
    boxes, classes = w.out(x, [0, 0, -1, -1], [0.5] * 4), w.out(x, [0.0] * n, [2.0] * n)
    likely = w.add("Sigmoid", classes) if w.opset < 13 else w.add("Softmax", classes, axis=1)
    made.model = w.ended([w.add("Concat", objectness, boxes, likely, axis=1)], ["map"])


def _centernet(w: TaskWriter, features: list[str], strides: Sequence[int], made: Built) -> None:
    (x,), n = features, made.classes
    heat = w.out(x, [-1.5] * n, [1.5] * n)
    made.how = {"raw": w.rng.random() < 0.5}
    if not made.how["raw"]:
        heat = w.add("Sigmoid", heat)
    size, offset = w.out(x, [3.0, 4.0], [0.8, 0.8]), w.out(x, [0.5, 0.5], [0.2, 0.2])
    made.how["stride"] = strides[0]
    made.decode |= {"strides": list(strides), "outputs": ["hm", "wh", "reg"]}
    made.model = w.ended([heat, size, offset], ["hm", "wh", "reg"])


def _ssd(w: TaskWriter, features: list[str], strides: Sequence[int], made: Built) -> None:
    each, n = int(w.rng.integers(1, 4)), made.classes
    anchors = [[[float(s * w.rng.uniform(1, 4)), float(s * w.rng.uniform(1, 4))]
                for _ in range(each)] for s in strides]  # fmt: skip
    background, form = int(w.rng.choice([0, -1])), str(w.rng.choice(["", "cycxhw"]))
    mean = [0.0] * (n + 1)
    mean[background] = 2.0
    boxes = [w.out(f, [0.0] * 4 * each, [1.0] * 4 * each) for f in features]
    logits = [w.out(f, np.tile(mean, each), [1.5] * (n + 1) * each) for f in features]

    def rows(maps: list[str], columns: int) -> str:
        flat = [
            w.add("Reshape", w.add("Transpose", m, perm=[0, 2, 3, 1]), w.ints(0, -1, columns))
            for m in maps
        ]
        return w.add("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]

    scores = rows(logits, n + 1)
    made.how = {"raw": w.rng.random() < 0.5, "anchors": anchors, "background": background,
                "form": form}  # fmt: skip
    if not made.how["raw"]:
        scores = w.add("Softmax", scores, axis=2)
    if w.rng.random() < 0.5:
        made.decode |= {"strides": list(strides), "anchors": anchors}
    else:
        priors = priors_of(w.size, strides, anchors)
        priors = priors[:, [1, 0, 3, 2]] if form else priors
        made.decode |= {"priors": priors.tolist(), "unit": "pixels"}
    made.decode |= {"background": background, "outputs": ["boxes", "scores"]}
    made.decode |= {"form": form} if form else {}
    made.model = w.ended([rows(boxes, 4), scores], ["boxes", "scores"])


def priors_of(size: tuple[int, int], strides: Sequence[int], anchors: Any) -> np.ndarray:
    """(P, 4), cx cy w h in pixels."""
    found = []
    for s, of_map in zip(strides, anchors, strict=True):
        for y in range(size[0] // s):
            for x in range(size[1] // s):
                found += [[(x + 0.5) * s, (y + 0.5) * s, aw, ah] for aw, ah in of_map]
    return np.array(found)


def _detr(w: TaskWriter, features: list[str], _: Sequence[int], made: Built) -> None:
    queries, n, made.how = int(w.rng.integers(5, 30)), made.classes, {"none": w.rng.random() < 0.5}
    columns = n + int(made.how["none"])
    pooled = w.add("Flatten", w.add("GlobalAveragePool", features[0]))
    f = w.values[pooled]

    def dense(outputs: int, mean: float, std: float) -> str:
        weight = w.rng.normal(0, 1, (f.shape[1], outputs))
        weight *= std / np.maximum((f @ weight).std(0), 1e-3)
        bias = mean + w.rng.normal(0, std, outputs) - (f @ weight).mean(0)
        y = w.add("Gemm", pooled, w.constant(weight), w.constant(bias))
        return w.add("Reshape", y, w.ints(0, queries, outputs // queries))

    logits = dense(queries * columns, 0.0 if made.how["none"] else -1.5, 1.5)
    boxes = w.add("Sigmoid", dense(queries * 4, -0.5, 0.6))
    made.decode |= {"outputs": ["logits", "boxes"]}
    made.model = w.ended([logits, boxes], ["logits", "boxes"])


def _segmentation(w: TaskWriter, features: list[str], _: Sequence[int], made: Built) -> None:
    kind = str(w.rng.choice(["scores", "scores", "softmax", "logit", "probability", "indices"]))
    made.how = {"holds": kind}
    if kind in ("logit", "probability"):
        made.classes, made.decode = 2, {"holds": kind}
        y = w.out(features[0], [0.0], [2.0])
        y = w.add("Sigmoid", y) if kind == "probability" else y
    else:
        n = made.classes = made.classes + 1
        y = w.out(features[0], [0.0] * n, [2.0] * n)
        if kind == "softmax" and w.opset >= 13:
            y = w.add("Softmax", y, axis=1)
        if kind == "indices":
            y, made.decode = w.add("ArgMax", y, axis=1, keepdims=0), {"holds": "indices"}
    made.model = w.ended([y], ["map"])


HEADS = {
    "yolox": _yolox, "yolov5": _yolov5, "yolov8": _yolov8, "fastestdet": _fastestdet,
    "centernet": _centernet, "ssd": _ssd, "detr": _detr, "segmentation": _segmentation,
}  # fmt: skip
