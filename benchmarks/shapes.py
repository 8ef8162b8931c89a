"""A small set for detection and segmentation that is made, not fetched: shapes on clutter.

    python benchmarks/shapes.py OUT [--train 600] [--val 150] [--size 192] [--seed 0]

    OUT/train/images/0000.png ...    OUT/train/masks/0000.png ...    (classes.txt, annotations.json)
    OUT/val/                         likewise

Discs, squares and triangles of bright and dark colours, turned, 1 to 5 in a picture, none over
another, on duller colours with lines and noise that are of no class: what is an object is learned
in the first epochs, which one it is by its form. annotations.json is COCO's; masks hold
0 (background), 1, 2, 3 and IGNORED along the outlines. The same numbers give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("disc", "square", "triangle")
CORNERS = (32, 4, 3)  # of the polygons
IGNORED = 255
DULL = (80, 176)  # levels of the clutter
TRIES = 20  # to find a free place


def picture(size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image, list[Any]]:
    """A picture, its mask and its objects: (class, polygon float (K, 2) in pixels)."""
    image = _clutter(size, rng)
    mask = Image.new("L", (size, size), 0)
    objects: list[tuple[int, np.ndarray]] = []
    for _ in range(int(rng.integers(1, 6))):
        for _ in range(TRIES):
            kind = int(rng.integers(len(CLASSES)))
            outline = _outline(kind, size, rng)
            if not any(_touch(outline, other) for _, other in objects):
                objects.append((kind, outline))
                break
    for kind, outline in objects:
        points = [(float(x), float(y)) for x, y in outline]
        ImageDraw.Draw(image).polygon(points, fill=_colour(rng))
        drawn = ImageDraw.Draw(mask)
        drawn.polygon(points, fill=kind + 1)
        drawn.line([*points, points[0]], fill=IGNORED)
    noise = rng.normal(0, rng.uniform(2, 10), (size, size, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), mask, objects


def _outline(kind: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A regular polygon, wholly in the picture: float (corners, 2)."""
    radius = float(np.exp(rng.uniform(np.log(0.08), np.log(0.25)))) * size
    centre = rng.uniform(radius + 1, size - 1 - radius, 2)
    corners = CORNERS[kind]
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _touch(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the boxes around two outlines overlap, or nearly."""
    return bool(((a.min(0) - 2 < b.max(0)) & (b.min(0) - 2 < a.max(0))).all())


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """One that stands out: every channel is near one of its ends, where clutter has none."""
    red, green, blue = (int(v) for v in rng.integers(0, 60, 3) + 195 * rng.integers(0, 2, 3))
    return red, green, blue


def _dull(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(*DULL, 3))
    return red, green, blue


def _clutter(size: int, rng: np.random.Generator) -> Image.Image:
    coarse = rng.integers(*DULL, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 9))):
        ends = [tuple(map(float, p)) for p in rng.uniform(0, size, (2, 2))]
        pen.line(ends, fill=_dull(rng), width=int(rng.integers(1, 4)))
    return image.filter(ImageFilter.GaussianBlur(1))


def annotation(number: int, image: int, kind: int, outline: np.ndarray) -> dict[str, Any]:
    """COCO's, of one object."""
    low, high = outline.min(0), outline.max(0)
    x, y = outline.T
    area = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
    return {
        "id": number, "image_id": image, "category_id": kind + 1, "iscrowd": 0,
        "bbox": [round(float(v), 2) for v in (*low, *(high - low))], "area": round(area, 2),
        "segmentation": [[round(float(v), 2) for v in outline.ravel()]],
    }  # fmt: skip


def write(out: Path, images: int, size: int, seed: int) -> None:
    """One split: images/, masks/, classes.txt and annotations.json."""
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for i in range(images):
        image, mask, objects = picture(size, np.random.default_rng([seed, i]))
        image.save(out / "images" / f"{i:04}.png")
        mask.save(out / "masks" / f"{i:04}.png")
        for kind, outline in objects:
            found.append(annotation(len(found) + 1, i + 1, kind, outline))
    told = [{"id": i + 1, "file_name": f"{i:04}.png", "width": size, "height": size}
            for i in range(images)]  # fmt: skip
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    whole = {"images": told, "categories": kinds, "annotations": found}
    (out / "annotations.json").write_text(json.dumps(whole))
    (out / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--val", type=int, default=150)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    write(asked.out / "train", asked.train, asked.size, 2 * asked.seed)
    write(asked.out / "val", asked.val, asked.size, 2 * asked.seed + 1)


if __name__ == "__main__":
    main()
