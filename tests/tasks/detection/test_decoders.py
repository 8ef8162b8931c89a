"""Every decoder equals its equation written out a row at a time, in Python's own numbers."""

from __future__ import annotations

from math import exp, sqrt, tanh

import numpy as np
import pytest

from edgecv.errors import BundleError
from edgecv.runtime.placement import Placement
from edgecv.tasks.detection import DetectionTask, places, published
from edgecv.tasks.detection.candidates import Asked, Candidates
from edgecv.tasks.detection.decoders import TABLE

SIZE, STRIDES, C = (64, 96), (8, 16, 32), 3
ALL = Asked(0.0, 1.0, 10**6, False)
CELLS = [(s, y, x) for s in STRIDES for y in range(64 // s) for x in range(96 // s)]
N = len(CELLS)


def sig(t: float) -> float:
    return 1 / (1 + exp(-t))


def soft(row: np.ndarray) -> list[float]:
    e = [exp(v) for v in row]
    return [v / sum(e) for v in e]


def box(cx, cy, w, h) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def decoded(decoder: str, arrays, ask: Asked = ALL, **fields) -> Candidates:
    fields = {"input": SIZE, "strides": STRIDES} | fields
    task = DetectionTask(decoder=decoder, **fields)
    arrays = [np.asarray(a, np.float32) for a in arrays]
    return TABLE[decoder].decode(arrays, task, ask)


def same(found: Candidates, boxes, scores, index) -> None:
    np.testing.assert_allclose(found.boxes, np.array(boxes), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-6)
    assert found.index.tolist() == list(index)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.index.dtype == np.int64
    assert found.nan == 0


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape).astype(np.float32)


def split(rows: np.ndarray) -> list[np.ndarray]:
    """Rows of all cells as maps (1, C, H, W)."""
    maps, start = [], 0
    for s in STRIDES:
        high, wide = 64 // s, 96 // s
        part = rows[start : start + high * wide]
        maps.append(part.T.reshape(1, -1, high, wide))
        start += high * wide
    return maps


def best(rows) -> tuple[list[float], list[int]]:
    rows = [list(r) for r in rows]
    return [max(r) for r in rows], [r.index(max(r)) for r in rows]


@pytest.mark.parametrize("as_maps", [False, True])
@pytest.mark.parametrize("raw_scores", [False, True])
def test_yolox(as_maps: bool, raw_scores: bool) -> None:
    head = random(N, 5 + C)
    likely = np.vectorize(sig)(head[:, 4:])
    boxes = [
        box((t[0] + x) * s, (t[1] + y) * s, exp(t[2]) * s, exp(t[3]) * s)
        for t, (s, y, x) in zip(head.tolist(), CELLS, strict=True)
    ]
    scores, index = best(likely[:, 1:] * likely[:, :1])
    if not raw_scores:
        head[:, 4:] = likely
    same(decoded("yolox", split(head) if as_maps else [head[None]]), boxes, scores, index)


def test_yolox_that_the_file_has_decoded_is_told_by_its_values() -> None:
    raw, likely = random(N, 4), np.random.default_rng(1).uniform(0, 1, (N, 1 + C))
    pixels = [
        ((t[0] + x) * s, (t[1] + y) * s, exp(t[2]) * s, exp(t[3]) * s)
        for t, (s, y, x) in zip(raw.tolist(), CELLS, strict=True)
    ]
    a = decoded("yolox", [np.concatenate([raw, likely], 1)[None]])
    b = decoded("yolox", [np.concatenate([pixels, likely], 1)[None]])
    np.testing.assert_allclose(a.boxes, b.boxes, rtol=1e-4, atol=1e-3)
    said = decoded("yolox", [np.concatenate([pixels, likely], 1)[None]], decoded=True)
    np.testing.assert_array_equal(b.boxes, said.boxes)
    shares = np.array(pixels) / [96, 64, 96, 64]
    c = decoded("yolox", [np.concatenate([shares, likely], 1)[None]], unit="relative")
    np.testing.assert_allclose(b.boxes, c.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rank", [4, 5])
def test_yolov5_of_raw_maps(rank: int) -> None:
    anchors = published.YOLOV5[0].anchors
    maps, boxes, likely = [], [], []
    for k, s in enumerate(STRIDES):
        high, wide = 64 // s, 96 // s
        t = random(3, high, wide, 5 + C, seed=k)
        for a, y, x in np.ndindex(3, high, wide):
            v = [sig(q) for q in t[a, y, x]]
            aw, ah = anchors[k][a]
            boxes.append(box(
                (2 * v[0] - 0.5 + x) * s, (2 * v[1] - 0.5 + y) * s,
                (2 * v[2]) ** 2 * aw, (2 * v[3]) ** 2 * ah,
            ))  # fmt: skip
            likely.append([v[4] * c for c in v[5:]])
        if rank == 4:
            t = t.transpose(0, 3, 1, 2).reshape(3 * (5 + C), high, wide)
        maps.append(t[None])
    same(decoded("yolov5", maps, anchors=anchors), boxes, *best(likely))


def test_yolov5_that_the_file_has_decoded() -> None:
    rng = np.random.default_rng(2)
    head = np.concatenate([rng.uniform(5, 60, (3 * N, 4)), rng.uniform(0, 1, (3 * N, 1 + C))], 1)
    found = decoded("yolov5", [head[None]])
    same(found, [box(*r[:4]) for r in head], *best(head[:, 5:] * head[:, 4:5]))


def test_yolov8_that_the_file_has_decoded_either_way_around_and_in_either_unit() -> None:
    rng = np.random.default_rng(3)
    head = np.concatenate([rng.uniform(5, 60, (N, 4)), rng.uniform(0, 1, (N, C))], 1)
    boxes, (scores, index) = [box(*r[:4]) for r in head], best(head[:, 4:])
    same(decoded("yolov8", [head.T[None]]), boxes, scores, index)
    same(decoded("yolo11", [head[None]]), boxes, scores, index)
    head[:, :4] /= [96, 64, 96, 64]
    same(decoded("yolov8", [head.T[None]]), boxes, scores, index)


@pytest.mark.parametrize("apart", [False, True])
def test_yolov8_of_raw_maps(apart: bool) -> None:
    head = random(N, 64 + C)
    boxes = []
    for row, (s, y, x) in zip(head, CELLS, strict=True):
        d = [sum(i * p for i, p in enumerate(soft(row[16 * k : 16 * k + 16]))) for k in range(4)]
        boxes.append([(x + 0.5 - d[0]) * s, (y + 0.5 - d[1]) * s,
                      (x + 0.5 + d[2]) * s, (y + 0.5 + d[3]) * s])  # fmt: skip
    scores, index = best(np.vectorize(sig)(head[:, 64:]))
    maps = split(head)
    if apart:
        sides, classes = split(head[:, :64]), split(head[:, 64:])
        maps = [m for pair in zip(sides, classes, strict=True) for m in pair]
    same(decoded("yolov8", maps), boxes, scores, index)


def test_fastestdet() -> None:
    t, likely = random(24, 4), np.random.default_rng(4).uniform(0, 1, (24, 1 + C))
    head = np.concatenate([likely[:, :1], t, likely[:, 1:]], 1)
    boxes = [
        box((i % 6 + tanh(v[0])) / 6 * 96, (i // 6 + tanh(v[1])) / 4 * 64,
            sig(v[2]) * 96, sig(v[3]) * 64)
        for i, v in enumerate(t.tolist())
    ]  # fmt: skip
    maps = [head.T.reshape(1, 5 + C, 4, 6)]
    found = decoded("fastestdet", maps, strides=(16,))
    same(found, boxes, *best(likely[:, :1] ** 0.6 * likely[:, 1:] ** 0.4))


@pytest.mark.parametrize("raw", [False, True])
def test_centernet(raw: bool) -> None:
    heat, size, offset = random(C, 8, 12), 3 + random(2, 8, 12), random(2, 8, 12)
    boxes, scores, index = [], [], []
    for y, x in np.ndindex(8, 12):
        for c in range(C):
            about = heat[c, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if heat[c, y, x] == about.max():
                w, h = size[:, y, x] * 8
                boxes.append(box((x + offset[0, y, x]) * 8, (y + offset[1, y, x]) * 8, w, h))
                scores.append(sig(heat[c, y, x]))
                index.append(c)
    shown = heat if raw else np.vectorize(sig)(heat)
    every = ALL._replace(every_class=True)
    found = decoded("centernet", [shown[None], size[None], offset[None]], every, strides=(8,))
    same(found, boxes, scores, index)


def prior_boxes(priors: published.Priors) -> list[tuple[float, ...]]:
    made = []
    for s, shapes in zip(priors.strides, priors.anchors, strict=True):
        for y, x in np.ndindex(-(-64 // s), -(-96 // s)):
            made += [((x + 0.5) * s, (y + 0.5) * s, w, h) for w, h in shapes]
    return made


def beside(prior, t) -> list[float]:
    px, py, pw, ph = prior
    return box(px + t[0] * 0.1 * pw, py + t[1] * 0.1 * ph,
               pw * exp(t[2] * 0.2), ph * exp(t[3] * 0.2))  # fmt: skip


def test_ssd() -> None:
    anchors = tuple(((8.0 * k, 8.0 * k), (10.0 * k, 5.0)) for k in (1, 2, 3))
    priors = prior_boxes(published.Priors(STRIDES, anchors))
    t, logits = random(len(priors), 4), random(len(priors), 1 + C, seed=1)
    boxes = [beside(p, r) for p, r in zip(priors, t.tolist(), strict=True)]
    scores, index = best([soft(r)[1:] for r in logits])
    found = decoded("ssd", [t[None], logits[None]], anchors=anchors, background=0)
    same(found, boxes, scores, index)


@pytest.mark.parametrize("background", [0, -1])
@pytest.mark.parametrize("shares", [False, True])
def test_ssd_of_tensorflow_with_priors_as_data(shares: bool, background: int) -> None:
    """ycenter = ty / 10 ha + ya, h = exp(th / 5) ha, likewise x (faster_rcnn_box_coder.py)."""
    rng, count = np.random.default_rng(5), 40
    anchors = np.concatenate(
        [rng.uniform(-0.1, 1.1, (count, 2)), rng.uniform(0.1, 1.3, (count, 2))], 1
    )
    t, logits = random(count, 4), random(count, 1 + C, seed=1)
    boxes, likely = [], []
    for (ty, tx, th, tw), (ya, xa, ha, wa), row in zip(t, anchors, logits, strict=True):
        cy, cx = ty / 10 * ha + ya, tx / 10 * wa + xa
        h, w = exp(th / 5) * ha, exp(tw / 5) * wa
        boxes.append([(cx - w / 2) * 96, (cy - h / 2) * 64, (cx + w / 2) * 96, (cy + h / 2) * 64])
        scores = [sig(v) for v in row]  # score_converter: SIGMOID
        likely.append(scores[1:] if background == 0 else scores[:-1])
    held = anchors if shares else anchors * [64, 96, 64, 96]
    found = decoded("ssd", [t[None], logits[None]], priors=held.tolist(), form="cycxhw",
                    background=background)  # fmt: skip
    same(found, boxes, *best(likely))


@pytest.mark.parametrize(
    ("side", "counts"), [(300, (19, 10, 5, 3, 2, 1)), (320, (20, 10, 5, 3, 2, 1))]
)
def test_the_boxes_of_tensorflows_ssd_mobilenet(side: int, counts) -> None:
    """`create_ssd_anchors` written out: height = scale / sqrt(ratio), width = scale sqrt(ratio)."""
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    wanted = []
    for k, n in enumerate(counts):
        ratios = [(scales[k], r) for r in (1, 2, 0.5, 3, 1 / 3)] + [
            (sqrt(scales[k] * scales[k + 1]), 1)
        ]
        if k == 0:
            ratios = [(0.1, 1), (0.2, 2), (0.2, 0.5)]
        wanted += [
            [(x + 0.5) / n, (y + 0.5) / n, s * sqrt(r), s / sqrt(r)]
            for y, x in np.ndindex(n, n) for s, r in ratios
        ]  # fmt: skip
    strides, anchors = published.TENSORFLOW[side]
    np.testing.assert_allclose(
        places.priors((side, side), strides, anchors), np.array(wanted) * side, rtol=1e-5, atol=1e-3
    )


def test_priors_of_another_count_are_told() -> None:
    task = DetectionTask(decoder="ssd", input=SIZE, priors=((5, 5, 9, 9),), background=0)
    arrays = {"b": random(1, 2, 4), "s": random(1, 2, 3)}
    with pytest.raises(BundleError, match="2 rows at 1 priors"):
        task.read(arrays, Placement((64, 96), (0, 0), (1, 1)), SIZE)


def test_retinaface_with_its_landmarks() -> None:
    strides, anchors = published.RETINAFACE
    priors = prior_boxes(published.RETINAFACE)
    t, points = random(len(priors), 4), random(len(priors), 10, seed=2)
    faces = np.random.default_rng(1).uniform(0, 1, len(priors))
    scores = np.stack([1 - faces, faces], 1)
    found = decoded("retinaface", [t[None], scores[None], points[None]],
                    strides=strides, anchors=anchors, background=0)  # fmt: skip
    same(found, [beside(p, r) for p, r in zip(priors, t.tolist(), strict=True)], faces,
         [0] * len(priors))  # fmt: skip
    expected = [
        [[p[0] + r[2 * k] * 0.1 * p[2], p[1] + r[2 * k + 1] * 0.1 * p[3]] for k in range(5)]
        for p, r in zip(priors, points.tolist(), strict=True)
    ]
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks, expected, rtol=1e-4, atol=1e-3)


def test_ultraface_whose_boxes_are_shares_of_the_input() -> None:
    boxes, faces = np.array([[0.25, 0.5, 0.5, 1.0], [0, 0, 1, 1]]), np.array([0.9, 0.4])
    scores = np.stack([1 - faces, faces], 1)
    found = decoded("ultraface", [boxes[None], scores[None]], background=0)
    same(found, [[24, 32, 48, 64], [0, 0, 96, 64]], faces, [0, 0])


@pytest.mark.parametrize("no_object", [False, True])
def test_detr(no_object: bool) -> None:
    logits, shares = random(5, C + no_object), np.random.default_rng(3).uniform(0.2, 0.8, (5, 4))
    likely = [soft(r)[:C] if no_object else [sig(v) for v in r] for r in logits]
    boxes = [box(r[0] * 96, r[1] * 64, r[2] * 96, r[3] * 64) for r in shares]
    found = decoded("detr", [logits[None], shares[None]], background=-1 if no_object else None)
    same(found, boxes, *best(likely))


def test_end_to_end_rows() -> None:
    rows = np.array([[[1, 2, 30, 40, 0.9, 2], [5, 5, 9, 9, 0.1, 0], [0, 0, 0, 0, 0, -1]]])
    found = decoded("end2end", [rows], ALL._replace(confidence=0.05))
    same(found, [[1, 2, 30, 40], [5, 5, 9, 9]], [0.9, 0.1], [2, 0])


def test_suppressed_in_the_file() -> None:
    boxes = np.array([[[1, 2, 30, 40], [5, 6, 9, 10], [7, 7, 8, 8]]])
    scores, classes = np.array([[0.9, 0.3, 0.2]]), np.array([[2, 0, 1]])
    whole = decoded("suppressed", [boxes, scores, classes])
    same(whole, boxes[0], [0.9, 0.3, 0.2], [2, 0, 1])
    counted = decoded("suppressed", [boxes, scores, classes, np.array([[2]])])
    same(counted, boxes[0, :2], [0.9, 0.3], [2, 0])
    five = decoded("suppressed", [np.insert(boxes, 4, scores, -1).astype(float), classes])
    assert five.boxes.tolist() == whole.boxes.tolist()
    shares = np.array([[[0.1, 0.2, 0.5, 0.4]]])  # y0, x0, y1, x1
    turned = decoded("suppressed", [shares, scores[:, :1], classes[:, :1]],
                     form="yxyx", unit="relative")  # fmt: skip
    same(turned, [[0.2 * 96, 0.1 * 64, 0.4 * 96, 0.5 * 64]], [0.9], [2])


@pytest.mark.parametrize("least", [0.0, 0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("every_class", [False, True])
@pytest.mark.parametrize("decoder", ["yolox", "yolov8"])
def test_the_confidence_and_the_classes_of_a_place(decoder, every_class, least) -> None:
    """Logits that are compared before their sigmoid give what comparing after it gives."""
    head = random(N, 5 + C if decoder == "yolox" else 4 + C)
    likely = 1 / (1 + np.exp(-head[:, 4:]))
    scores = likely[:, 1:] * likely[:, :1] if decoder == "yolox" else likely
    wanted = [
        (i, c) for i, c in np.ndindex(*scores.shape)
        if scores[i, c] >= least and (every_class or c == scores[i].argmax())
    ]  # fmt: skip
    array = head[None] if decoder == "yolox" else head.T[None]
    ask = Asked(least, 1.0, 10**6, False, every_class)
    found = decoded(decoder, [array], ask, **({"decoded": False} if decoder == "yolox" else {}))
    assert found.index.tolist() == [c for _, c in wanted]
    np.testing.assert_allclose(found.scores, [scores[w] for w in wanted], rtol=1e-5)


def test_ssd300_begins_with_the_published_boxes() -> None:
    """8,732 boxes (arXiv:1512.02325, table 1); scales of torchvision's ssd300_vgg16."""
    first = published.SSD[300].anchors[0]
    expected = [(21, 21), (300 * sqrt(0.07 * 0.15),) * 2, (21 * sqrt(2), 21 / sqrt(2))]
    np.testing.assert_allclose(first[:3], expected)
    np.testing.assert_allclose(first[3], first[2][::-1])
