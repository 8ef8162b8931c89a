"""What a network said of a picture, drawn on it: boxes, the classes of pixels, the best classes,
numbers.

Lines and letters grow with the picture. One whose longer side is below LEAST pixels has no room for
letters and is enlarged by a whole number k, pixel by pixel; every other keeps its size (k = 1).

    hue of class i = 210 + i * 137.508 degrees   (the golden angle: neighbours lie far apart)
    lightness      = one of three, by i mod 3

Text stands on the class's own colour, black or white by which of the two contrasts more with it:
at least 4.5 to 1, what WCAG 2.1 asks for (relative luminance as defined there).

Pillow is imported by what draws.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgecv.errors import DataError, missing
from edgecv.runtime.answers import Measured

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

LEAST = 224  # pixels of the longer side, below which a picture is enlarged
IGNORED = 255  # of a map: a pixel of which nothing is said
OPACITY = 0.6  # of a class's colour over the picture
LIGHT = (0.50, 0.38, 0.66)

Colour = tuple[int, int, int]
Area = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last two beyond


class Found(Protocol):
    """boxes: float32 (K, 4), (x0, y0, x1, y1) in pixels of the picture; scores: (K,), 0..1; index:
    int (K,), of the class; and, where it has them, landmarks: (K, L, 2), (x, y) in pixels"""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...
    @property
    def index(self) -> Any: ...


class Scored(Protocol):
    """One class of `edgecv.runtime.bundle.Prediction`."""

    @property
    def index(self) -> Any: ...
    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...


def colour(index: int) -> Colour:
    """The colour of a class, the same in every picture."""
    red, green, blue = colorsys.hls_to_rgb(
        (210 + index * 137.508) / 360 % 1, LIGHT[index % 3], 0.85
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def ink(ground: Colour) -> Colour:
    """Black or white, whichever can be read better on `ground`."""
    light = luminance(ground)
    return (0, 0, 0) if (light + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def luminance(of: Colour) -> float:
    """Relative luminance, 0..1 (WCAG 2.1)."""
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in
              (c / 255 for c in of)]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def boxes(image: np.ndarray, found: Found, labels: Sequence[str]) -> np.ndarray:
    """uint8 (k H, k W, 3): every box with its class and score, the surest above the others.

    image: uint8 (H, W), (H, W, C). Raises DataError: no such image; MissingExtraError.
    """
    sheet = _Sheet(image)
    order = np.argsort(-np.asarray(found.scores, np.float64), kind="stable")
    inside = [(int(i), area) for i in order if (area := sheet.area(found.boxes[int(i)]))]
    landmarks = getattr(found, "landmarks", None)
    for i, area in reversed(inside):
        sheet.frame(area, colour(int(found.index[i])))
        if landmarks is not None:
            sheet.dots(landmarks[i], colour(int(found.index[i])))
    for i, area in inside:
        index = int(found.index[i])
        text = f"{named(labels, index)} {float(found.scores[i]):.2f}"
        sheet.tag(area, text, colour(index))
    sheet.write_tags()
    return sheet.pixels()


def masks(image: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """uint8 (k H, k W, 3): every pixel in its class's colour over the picture, `faded`, so that the
    colour is the class's alone, borders between classes, and a legend of the classes present, the
    largest first, with their share of the pixels.

    classes: integers (H, W); IGNORED keeps the picture. Raises DataError: of another size than the
    image; MissingExtraError.
    """
    if classes.shape != image.shape[:2]:
        what = f"map of {classes.shape} over an image of {image.shape[:2]}"
        raise DataError("drawing", what, "a class for every pixel of the image")
    sheet = _Sheet(image)
    present, counts = np.unique(classes, return_counts=True)
    rows = sorted(zip(counts.tolist(), present.tolist(), strict=True), key=lambda r: (-r[0], r[1]))
    rows = [(count, index) for count, index in rows if index != IGNORED]
    table = np.zeros((max(256, int(present.max(initial=0)) + 1), 3), np.float32)
    table[[index for _, index in rows]] = [colour(index) for _, index in rows] or np.zeros((0, 3))
    sheet.veil(classes, table)
    lines = [
        (f"{named(labels, index)} {100 * count / classes.size:.1f}%", colour(index))
        for count, index in rows
    ]
    sheet.legend(lines)
    return sheet.pixels()


def classes(image: np.ndarray, predictions: Sequence[Scored]) -> np.ndarray:
    """uint8 (k H, k W, 3): the classes given with their scores, best first, in a corner."""
    sheet = _Sheet(image)
    sheet.legend([(f"{p.label} {p.score:.2f}", colour(int(p.index))) for p in predictions])
    return sheet.pixels()


def numbers(image: np.ndarray, measured: Sequence[Measured]) -> np.ndarray:
    """uint8 (k H, k W, 3): every number with its name and unit, in a corner, in their order."""
    sheet = _Sheet(image)
    sheet.legend([
        (f"{m.label} {m.value:.4g}{f' {m.unit}' if m.unit else ''}", colour(m.index))
        for m in measured
    ])  # fmt: skip
    return sheet.pixels()


def named(labels: Sequence[str], index: int) -> str:
    """The label of a class; its number where there is none."""
    return labels[index] if 0 <= index < len(labels) else str(index)


class _Sheet:
    """A picture that is drawn on. unit: the height of a letter, pixels"""

    def __init__(self, image: np.ndarray) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ModuleNotFoundError as error:
            raise missing("pillow", "images", "drawing") from error
        rgb = _rgb(image)
        self.times = -(-LEAST // max(rgb.shape[:2])) if max(rgb.shape[:2]) < LEAST else 1
        self.rgb = rgb.repeat(self.times, 0).repeat(self.times, 1)
        self.height, self.width = self.rgb.shape[:2]
        longer, shorter = sorted((self.height, self.width))[::-1]
        self.unit = max(12, round(min(longer / 52, shorter / 24)))
        self.line = max(2, round(self.unit / 7))
        self.font = ImageFont.load_default(self.unit)
        self._new, self._pen = Image.fromarray, ImageDraw.Draw
        self._set(Image.fromarray(self.rgb))
        self.tags: list[tuple[Area, str, Colour]] = []

    def _set(self, picture: Image.Image) -> None:
        self.picture = picture
        self.draw: ImageDraw.ImageDraw = self._pen(picture)

    def pixels(self) -> np.ndarray:
        return np.array(self.picture)

    def area(self, box: np.ndarray) -> Area | None:
        """A box of the image in pixels of the sheet; None where nothing of it shows."""
        if not np.isfinite(box).all():
            return None
        most = (self.width, self.height, self.width, self.height)
        ends = [
            min(max(round(float(v) * self.times), 0), m) for v, m in zip(box, most, strict=True)
        ]
        x0, y0, x1, y1 = ends
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def frame(self, area: Area, of: Colour) -> None:
        """A box's outline, with a rim that tells it from a ground of its own colour."""
        x0, y0, x1, y1 = area
        rim = max(1, self.line // 2)
        self.draw.rectangle(
            (x0 - rim, y0 - rim, x1 - 1 + rim, y1 - 1 + rim), outline=ink(of), width=self.line + rim
        )
        self.draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=of, width=self.line)

    def dots(self, points: np.ndarray, of: Colour) -> None:
        """points: (L, 2), (x, y) in pixels of the image"""
        for x, y in points[np.isfinite(points).all(-1)] * self.times:
            self.draw.circle((x, y), self.line + 1, fill=of, outline=ink(of))

    def tag(self, area: Area, text: str, of: Colour) -> None:
        """Find a place for a box's text: above it, else within, else below, else a line farther;
        where the texts that have a place leave one free."""
        text = self.fitted(text, self.width)
        wide, high = self.extent(text)
        x = min(max(area[0], 0), self.width - wide)
        right = min(max(area[2] - wide, 0), self.width - wide)
        tops = [area[1] - high, area[1], area[3], area[3] - high, area[1] - 2 * high,
                area[3] + high]  # fmt: skip
        places = [
            (at, top, at + wide, top + high)
            for top in tops
            for at in (x, right)
            if 0 <= top <= self.height - high
        ] or [(x, 0, x + wide, high)]
        taken = [place for place, _, _ in self.tags]
        free = (p for p in places if not any(_overlap(p, other) for other in taken))
        self.tags.append((next(free, places[0]), text, of))

    def write_tags(self) -> None:
        for place, text, of in reversed(self.tags):  # the surest last, above the others
            self.draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=of)
            self.write(place[0], place[1], text, ink(of))

    def extent(self, text: str) -> tuple[int, int]:
        """(width, height) of a line with its margins."""
        return round(self.font.getlength(text)) + self.unit // 2, round(1.35 * self.unit)

    def write(self, x: int, y: int, text: str, of: Colour) -> None:
        at = (x + self.unit // 4, y + round(0.67 * self.unit))
        self.draw.text(at, text, fill=of, font=self.font, anchor="lm")

    def fitted(self, text: str, most: int) -> str:
        """The text in one line, the middle left out where it is wider than `most` pixels."""
        text = "".join(c if c.isprintable() else " " for c in text)
        if self.extent(text)[0] <= most:
            return text
        head, _, score = text.rpartition(" ")
        while head and self.extent(f"{head}... {score}")[0] > most:
            head = head[:-1]
        return f"{head}... {score}"

    def veil(self, of: np.ndarray, table: np.ndarray) -> None:
        """Colours by class over the faded picture, borders between classes in full colour."""
        of = of.repeat(self.times, 0).repeat(self.times, 1)
        over = table[of]
        border = _borders(of, max(1, self.line // 2))
        share = np.where(border, 1.0, OPACITY).astype(np.float32) * (of != IGNORED)
        under = np.where((of != IGNORED)[..., None], faded(self.rgb), self.rgb)
        mixed = under + share[..., None] * (over - under)
        self._set(self._new(np.rint(mixed).astype(np.uint8)))

    def legend(self, lines: Sequence[tuple[str, Colour]]) -> None:
        """Lines below one another in the upper left corner, each on its colour; what has no room
        is counted."""
        high = self.extent("")[1]
        room = max(1, self.height // high)
        shown = list(lines) if len(lines) <= room else list(lines[: room - 1])
        texts = [(self.fitted(text, self.width), of) for text, of in shown]
        if len(lines) > len(shown):
            texts.append((f"and {len(lines) - len(shown)} more", (40, 40, 40)))
        wide = max((self.extent(text)[0] for text, _ in texts), default=0)
        for row, (text, of) in enumerate(texts):
            self.draw.rectangle((0, row * high, wide - 1, (row + 1) * high - 1), fill=of)
            self.write(0, row * high, text, ink(of))


def faded(rgb: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), grey of half the contrast, as what colours are laid over: 64 + luma / 2 (of
    ITU-R 601-2)."""
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(64 + luma / 2).astype(np.uint8)[..., None].repeat(3, 2)


def _rgb(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): grey thrice, of many channels the first three, of two the first."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        what = f"{image.dtype} {image.shape} is not an image"
        raise DataError("drawing", what, "uint8 (H, W) or (H, W, C)")
    colours = image[..., None] if image.ndim == 2 else image
    return colours[..., :3] if colours.shape[2] >= 3 else colours[..., :1].repeat(3, 2)


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _borders(of: np.ndarray, wide: int) -> np.ndarray:
    """bool (H, W): within `wide` pixels before a pixel of another class."""
    border = np.zeros(of.shape, bool)
    for step in range(1, wide + 1):
        border[:, :-step] |= of[:, :-step] != of[:, step:]
        border[:-step] |= of[:-step] != of[step:]
    return border
