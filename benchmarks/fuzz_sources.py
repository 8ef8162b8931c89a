"""Label files of detectors and of segmentation, damaged: each is read, or refused in a sentence.

    python benchmarks/fuzz_sources.py [--count 4000] [--seed 0]

Small sets of every source (coco, coco-maps, yolo, voc, masks) whose label files have bytes changed,
values swapped for what does not belong there, lines moved, or are cut short, gone or links to
nothing. What is read is held to what boxes and maps must be. What counts is in `fuzzing.py`.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import changed_bytes, changed_json, main
from PIL import Image

from edgecv import data
from edgecv.data.annotations import IGNORED, Boxes, Maps

SIZE, CLASSES, COUNT = (12, 16), ("ant", "bee", "cat"), 3  # height and width
Case = tuple[str, str, dict[str, bytes]]  # source, what follows its colon, files by path
WORDS = (
    *("nan", "inf", "-1", "1e400", "", "x", "0x10", "1" * 400, "99999999999999999999", "0.5", "-0"),
    *("é", "\x00", "\x1b[31m", "-3 -3 -3 -3", "1,5", "None", "2.5", "1e-320", "٣"),
)
TAGS = ("xmin", "name", "bndbox", "object", "size", "width", "difficult", "annotation")


def _image(mode: str, seed: int) -> bytes:
    rng, file = np.random.default_rng(seed), io.BytesIO()
    if mode == "L":
        pixels = rng.integers(0, len(CLASSES), SIZE, np.uint8)
    else:
        pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@cache
def bases() -> dict[str, tuple[str, dict[str, bytes]]]:
    """What each source is called with, and its files."""
    pictures = {f"images/{i}.png": _image("RGB", i) for i in range(COUNT)}
    rows = [
        {"id": k, "image_id": k % COUNT, "category_id": 1 + k % 3, "iscrowd": int(k == 5),
         "bbox": [1.0 + k, 2.0, 5.5, 4.0], "area": 20.0,
         "segmentation": [[1.0, 2.0, 6.5, 2.0, 6.5, 6.0, 1.0, 6.0]]}
        for k in range(6)
    ]  # fmt: skip
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
                   for i in range(COUNT)],
        "annotations": rows,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
    }  # fmt: skip
    runs = {"size": list(SIZE), "counts": [20, 30, SIZE[0] * SIZE[1] - 50]}
    rows = [*rows, {**rows[0], "id": 9, "segmentation": runs}]
    lines = [f"{k} 0.4 0.5 0.25 0.5\n1 0.1 0.1 0.6 0.2 0.5 0.9\n" for k in range(COUNT)]
    names = "\n".join(CLASSES).encode() + b"\n"
    yaml = "path: .\ntrain: images\nval: images\nnames:\n  0: ant\n  1: bee\n  2: cat\n"
    xml = (
        "<annotation><size><width>16</width><height>12</height></size><object><name>bee</name>"
        "<difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax>"
        "</bndbox></object><object><name>ant</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
    )
    of_voc = {f"JPEGImages/{i}.png": _image("RGB", i) for i in range(COUNT)}
    return {
        "coco": ("set.json", {**pictures, "set.json": json.dumps(coco).encode()}),
        "coco-maps": ("set.json", {
            **pictures, "set.json": json.dumps({**coco, "annotations": rows}).encode()}),
        "yolo": ("data.yaml", {
            **pictures, "data.yaml": yaml.encode(),
            **{f"labels/{i}.txt": line.encode() for i, line in enumerate(lines)}}),
        "voc": (".", {
            **of_voc, "classes.txt": names, "ImageSets/Main/val.txt": b"0 1\n1 -1\n2\n",
            **{f"Annotations/{i}.xml": xml.encode() for i in range(COUNT)}}),
        "masks": (".", {
            **pictures, "classes.txt": names,
            **{f"masks/{i}.png": _image("L", i) for i in range(COUNT)}}),
    }  # fmt: skip


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` sets; the same for the same seed."""
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        kind = rng.choice(list(bases()))
        argument, files = bases()[kind]
        if kind == "yolo" and rng.random() < 0.3:  # a folder, with names in a file or nowhere
            files = {k: v for k, v in files.items() if k != "data.yaml"}
            argument = "."
            if rng.random() < 0.5:
                files["classes.txt"] = b"ant\nbee\ncat\n"
        files = dict(files)
        labels = [n for n in files if not n.startswith(("images/", "JPEGImages/"))]
        name = rng.choice(labels if rng.random() < 0.95 else list(files))
        files[name] = _damaged(rng, name, files[name])
        if rng.random() < 0.05:
            del files[rng.choice(list(files))]
        yield kind, argument, files


def _damaged(rng: random.Random, name: str, content: bytes) -> bytes:
    how = rng.randrange(5)
    if how == 0:
        return content[: rng.randrange(len(content) + 1)]
    if how == 1 or (name.endswith(".png") and how < 4):
        return changed_bytes(rng, content)
    if name.endswith(".json"):
        document = json.loads(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            changed_json(rng, document)
        return json.dumps(document).encode()
    if name.endswith(".png"):
        return _other_image(rng)
    text = content.decode()
    if name.endswith(".xml"):
        tag = rng.choice(TAGS)
        inner = rng.choice(WORDS) if how != 2 else f"<{rng.choice(TAGS)}>7</{rng.choice(TAGS)}>"
        at = text.find(f"<{tag}>") + len(tag) + 2
        return (text[:at] + inner + text[text.find("<", at) :]).encode()
    parts = text.replace("\n", " \n ").split(" ")
    parts[rng.randrange(len(parts))] = rng.choice(WORDS)
    return " ".join(parts).replace(" \n ", "\n").encode()


def _other_image(rng: random.Random) -> bytes:
    """A mask of another mode, size or range."""
    file, numbers = io.BytesIO(), np.random.default_rng(rng.randrange(1 << 30))
    how = rng.randrange(4)
    size = SIZE if how else (rng.choice((1, 11, 40)), 16)
    if how == 3:
        image = Image.fromarray(numbers.integers(0, 70_000, size).astype(np.int32))
    else:
        most = rng.choice((3, 4, 256))
        image = Image.fromarray(numbers.integers(0, most, size).astype(np.uint8))
        image = image.convert(("L", "P", "RGBA")[how])
    image.save(file, "TIFF" if how == 3 else rng.choice(("PNG", "TIFF")))
    return file.getvalue()


def check(case: Case) -> None:
    """Reads one as a run does. Raises EdgecvError for what is refused; anything else is a fault."""
    kind, argument, files = case
    with tempfile.TemporaryDirectory(prefix="edgecv-fuzz-") as room:
        for name, content in files.items():
            path = Path(room) / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        source = f"{kind}:{Path(room) / 'set' / argument}"
        data.fingerprint(source, "test")
        out = Path(room) / "out"
        out.mkdir()
        read = data.materialise(source, "test", (8, 8), 3, {"resize": "stretch"}, out)
        again = data.Images.load(out)
        held(read.truth, len(read.classes))
        held(again.truth, len(again.classes))


def held(truth: Any, classes: int) -> None:
    """What boxes and maps must be, whatever was read. Raises ValueError."""
    if isinstance(truth, Maps):
        used = truth.flat[truth.flat != IGNORED]
        right = not used.size or int(used.max()) < classes
    elif isinstance(truth, Boxes):
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        edges = np.repeat(truth.sizes[:, ::-1], np.diff(truth.ends, prepend=0), 0)
        right = bool(
            np.isfinite(truth.boxes).all() and (sides > 0).all() and (truth.boxes >= 0).all()
            and (truth.boxes[:, 2:] <= edges).all() and np.isfinite(truth.area).all()
            and (truth.area > 0).all() and ((truth.index >= 0) & (truth.index < classes)).all()
        )  # fmt: skip
    else:
        right = False
    if not right:
        raise ValueError(f"wrong truth was read: {truth!r}"[:200])


if __name__ == "__main__":
    raise SystemExit(main(cases, check, 4000))
