"""`shapes-boxes[:N]` and `shapes-maps[:N]`: a set for detection and segmentation that is made, not
fetched: shapes on clutter. N pictures in train (600 where it is not said), a quarter in test.

Discs, squares and triangles of bright and dark colours, turned, 1 to 5 in a picture, none over
another, on duller colours with lines and noise that are of no class: what is an object is learned
in the first epochs, which one it is by its form. Maps hold 0 (background), 1, 2, 3 and IGNORED
along the outlines. Both words have the same pictures, and so has any N as far as it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecv.data.annotations import IGNORED, PictureBoxes
from edgecv.data.source import SPLITS, Items
from edgecv.errors import DataError, missing

if TYPE_CHECKING:
    from PIL import Image

CLASSES = ("disc", "square", "triangle")
SIDE = 192  # pixels
TRAINED = 600  # pictures
JUDGED = 4  # so many times fewer
MOST = 100_000
_VERSION = 1  # of how pictures are made: another number, and what was made of them is made anew
_CORNERS = (32, 4, 3)  # of the polygons
_DULL = (80, 176)  # levels of the clutter
_TRIES = 20  # to find a free place

Objects = list[tuple[int, np.ndarray]]  # (class, outline float (corners, 2) as x, y in pixels)


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The split's pictures. Raises DataError: no whole number of pictures; no Pillow."""
    word, count = _parted(argument)
    if split == "test":
        count = max(1, count // JUDGED)
    seed = SPLITS.index(split)
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing("pillow", "compress", argument) from error

    def boxes(index: int) -> tuple[np.ndarray, PictureBoxes]:
        pixels, _, objects = picture(SIDE, np.random.default_rng([seed, index]))
        return pixels, _boxes(objects)

    def maps(index: int) -> tuple[np.ndarray, np.ndarray]:
        return picture(SIDE, np.random.default_rng([seed, index]))[:2]

    if word == "shapes-boxes":
        return Items(count, boxes, CLASSES, 3, parallel=True, truth="Boxes")
    return Items(count, maps, ("background", *CLASSES), 3, parallel=True, truth="Maps")


def fingerprint(argument: str, split: str) -> str:
    """The words that the pictures are made by. Raises DataError as `items`."""
    word, count = _parted(argument)
    return f"{word} {_VERSION} {split} {count}"


def _parted(argument: str) -> tuple[str, int]:
    """The word and how many pictures are in train. Raises DataError."""
    word, colon, count = argument.partition(":")
    if not colon:
        return word, TRAINED
    if not (count.isdecimal() and len(count) < 9 and 0 < int(count) <= MOST):
        raise DataError(argument, f"{count!r} is no number of pictures",
                        f"write {word}:{TRAINED}; 1 to {MOST:,}")  # fmt: skip
    return word, int(count)


def picture(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Objects]:
    """A picture uint8 (side, side, 3), its map uint8 (side, side), and its objects."""
    from PIL import Image, ImageDraw

    image = _clutter(side, rng)
    classes = Image.new("L", (side, side), 0)
    objects: Objects = []
    for _ in range(int(rng.integers(1, 6))):
        for _ in range(_TRIES):
            kind = int(rng.integers(len(CLASSES)))
            outline = _outline(kind, side, rng)
            if not any(_touch(outline, other) for _, other in objects):
                objects.append((kind, outline))
                break
    for kind, outline in objects:
        points = [(float(x), float(y)) for x, y in outline]
        ImageDraw.Draw(image).polygon(points, fill=_colour(rng))
        drawn = ImageDraw.Draw(classes)
        drawn.polygon(points, fill=kind + 1)
        drawn.line([*points, points[0]], fill=IGNORED)
    noise = rng.normal(0, rng.uniform(2, 10), (side, side, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return pixels, np.asarray(classes), objects


def _boxes(objects: Objects) -> PictureBoxes:
    """Boxes around the outlines; areas are the outlines' own."""
    around = [np.concatenate([o.min(0), o.max(0)]) for _, o in objects]
    return PictureBoxes(
        np.array(around, np.float32).reshape(-1, 4),
        np.array([kind for kind, _ in objects], np.int64),
        np.zeros(len(objects), bool),
        np.array([_area(outline) for _, outline in objects], np.float32),
    )


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _outline(kind: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """A regular polygon, wholly in the picture: float (corners, 2)."""
    radius = float(np.exp(rng.uniform(np.log(0.08), np.log(0.25)))) * side
    centre = rng.uniform(radius + 1, side - 1 - radius, 2)
    corners = _CORNERS[kind]
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
    red, green, blue = (int(v) for v in rng.integers(*_DULL, 3))
    return red, green, blue


def _clutter(side: int, rng: np.random.Generator) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFilter

    coarse = rng.integers(*_DULL, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 9))):
        ends = [tuple(map(float, p)) for p in rng.uniform(0, side, (2, 2))]
        pen.line(ends, fill=_dull(rng), width=int(rng.integers(1, 4)))
    return image.filter(ImageFilter.GaussianBlur(1))
