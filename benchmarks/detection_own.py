"""Detectors as .onnx files, evaluated without edgecv: the other side of `detection_map.py`.

Letterbox and reading are written here again from the detectors' repositories (YOLOX:
yolox/data/data_augment.py `preproc`, yolox/utils/demo_utils.py `demo_postprocess`,
yolox/utils/boxes.py `postprocess`; FastestDet: utils/tool.py `handle_preds`), with Pillow's
bilinear resize, greedy suppression in float64, and pycocotools' own figures. Nothing of edgecv is
imported.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LEAST, IOU, MOST = 0.001, 0.45, 300  # confidence, overlap, boxes of an image


class Rows(NamedTuple):
    """boxes: float64 (K, 4), (x0, y0, x1, y1) in pixels of the picture; scores, classes: (K,)"""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


# --- the two networks


def yolox(session: onnxruntime.InferenceSession, picture: Image.Image) -> Rows:
    """YOLOX's rows (1, N, 5 + C) as the network says them, before `demo_postprocess`."""
    height, width = session.get_inputs()[0].shape[2:]
    ratio = min(height / picture.height, width / picture.width)
    inner = (int(picture.width * ratio), int(picture.height * ratio))
    canvas = Image.new("RGB", (width, height), (114, 114, 114))
    canvas.paste(picture.resize(inner, Image.Resampling.BILINEAR), (0, 0))
    rows = _run(session, np.asarray(canvas, np.float32))[0].astype(np.float64)
    cells, stride = _cells((height, width))
    rows[:, :2] = (rows[:, :2] + cells) * stride
    rows[:, 2:4] = np.exp(rows[:, 2:4]) * stride
    each = rows[:, 4:5] * rows[:, 5:]
    corners = np.hstack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2])
    # what the resize really did: int() has taken up to a pixel
    scale = np.array([inner[0] / picture.width, inner[1] / picture.height] * 2)
    return Rows(corners / scale, each.max(1), each.argmax(1))


def _cells(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(x, y of each cell (N, 2), its stride (N, 1)), maps of strides 8, 16 and 32 in turn"""
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def fastestdet(session: onnxruntime.InferenceSession, picture: Image.Image) -> Rows:
    """FastestDet's map (1, 5 + C, H, W)."""
    height, width = session.get_inputs()[0].shape[2:]
    small = picture.resize((width, height), Image.Resampling.BILINEAR)
    found = _run(session, np.asarray(small, np.float32) / np.float32(255))[0].astype(np.float64)
    high, wide = found.shape[1:]
    y, x = np.mgrid[:high, :wide]
    cx, cy = (x + np.tanh(found[1])) / wide, (y + np.tanh(found[2])) / high
    w, h = 1 / (1 + np.exp(-found[3])), 1 / (1 + np.exp(-found[4]))
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1).reshape(-1, 4)
    score = found[0] ** 0.6 * found[5:].max(0) ** 0.4
    size = np.array([picture.width, picture.height] * 2)
    return Rows(corners * size, score.ravel(), found[5:].argmax(0).ravel())


def _run(session: onnxruntime.InferenceSession, rgb: np.ndarray) -> np.ndarray:
    image = np.ascontiguousarray(rgb[..., ::-1].transpose(2, 0, 1)[None])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


NETWORKS: dict[str, Callable[[onnxruntime.InferenceSession, Image.Image], Rows]] = {
    "yolox_nano": yolox,
    "fastestdet": fastestdet,
}


def evaluated(file: Path, pictures: Sequence[Path]) -> list[Rows]:
    """What the network says of each picture, after suppression, best first."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    read = NETWORKS[file.stem]
    return [_kept(read(session, Image.open(path).convert("RGB"))) for path in pictures]


def _kept(rows: Rows) -> Rows:
    order = np.argsort(-rows.scores, kind="stable")
    order = order[rows.scores[order] >= LEAST]
    kept: list[int] = []
    while len(order) and len(kept) < MOST:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        same = rows.classes[rest] == rows.classes[first]
        order = rest[~(same & (_overlap(rows.boxes[first], rows.boxes[rest]) > IOU))]
    return Rows(rows.boxes[kept], rows.scores[kept], rows.classes[kept])


def _overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    shared = sides.clip(0).prod(1)
    return shared / (np.prod(one[2:] - one[:2]) + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def clipped(rows: Rows, size: tuple[int, int]) -> Rows:
    """Cut off at the picture's edge, without what lies beside it. size: (width, height)"""
    boxes = rows.boxes.clip(0, np.array(size * 2))
    on = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Rows(boxes[on], rows.scores[on], rows.classes[on])


# --- the truth, and the figures


class Truth(NamedTuple):
    """A folder with images/ and YOLO's labels/. sizes: (width, height) of each picture"""

    pictures: list[Path]
    sizes: list[tuple[int, int]]
    boxes: list[np.ndarray]  # (M, 5): class, x0, y0, width, height in pixels


def truth(folder: Path) -> Truth:
    pictures = sorted((folder / "images").glob("*.jpg"))
    sizes = [Image.open(path).size for path in pictures]
    return Truth(
        pictures, sizes, [_labels(folder, p, s) for p, s in zip(pictures, sizes, strict=True)]
    )


def _labels(folder: Path, picture: Path, size: tuple[int, int]) -> np.ndarray:
    path = folder / "labels" / f"{picture.stem}.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = np.array([line.split() for line in lines if line.strip()], np.float64).reshape(-1, 5)
    rows[:, 1:3] -= rows[:, 3:5] / 2
    rows[:, 1:] *= np.array(size * 2)
    return rows


def figures(true: Truth, said: Sequence[Rows]) -> tuple[float, float]:
    """(mAP50:95, AP50) by pycocotools, 0..1."""
    classes = sorted({int(k) for rows in true.boxes for k in rows[:, 0]})
    marks = list(_annotations(true.boxes))
    found = [
        {"image_id": i, "category_id": int(k), "score": float(score),
         "bbox": [float(x0), float(y0), float(x1) - float(x0), float(y1) - float(y0)]}
        for i, rows in enumerate(said)
        for (x0, y0, x1, y1), score, k in zip(*rows, strict=True)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        sets = COCO()
        sets.dataset = {
            "info": {}, "annotations": marks, "categories": [{"id": k} for k in classes],
            "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(true.sizes)],
        }  # fmt: skip
        sets.createIndex()
        judged = COCOeval(sets, sets.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1])


def _annotations(pictures: Sequence[np.ndarray]) -> Iterator[dict[str, object]]:
    n = 0
    for i, rows in enumerate(pictures):
        for k, *box in rows.tolist():
            n += 1
            yield {"id": n, "image_id": i, "category_id": int(k), "iscrowd": 0, "bbox": box,
                   "area": box[2] * box[3]}  # fmt: skip
