"""An image with what a compressed detector finds otherwise, an SVG in the page's colours.

    lost      dashed, in the colour of what was lost
    gained    in the colour of what was won
    moved     the new box in ink, the old one dashed and soft; renamed likewise

Numbers at the boxes are those of the list beside the picture, so that colour alone tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.report import pictures
from edgecv.report.found import Change, said

STROKES = {"lost": "--lost", "gained": "--won", "moved": "--ink", "renamed": "--ink"}
Place = tuple[float, float]  # x, y in pixels of the image
WIDE, HIGH = 15, 12  # of a number's ground, in pixels of the page
SHOWN = 12  # changes that are drawn and told of one image


def scene(pixels: np.ndarray, found: Sequence[Change], labels: Sequence[str]) -> dict[str, Any]:
    """What the page holds of one image: {"picture": data URI, "size": [height, width], "captions":
    a phrase of each change drawn, "svg": the whole, "more": changes that are not drawn}.

    pixels: uint8 (H, W, C). Raises MissingExtraError.
    """
    height, width = pixels.shape[:2]
    shown = list(found[:SHOWN])
    captions = [said(change, labels) for change in shown]
    picture = pictures.scene(pixels)
    return {
        "picture": picture, "size": [height, width], "captions": captions,
        "more": len(found) - len(shown),
        "svg": drawn(picture, (height, width), shown, "; ".join(captions)),
    }  # fmt: skip


def drawn(picture: str, size: tuple[int, int], found: Sequence[Change], label: str) -> str:
    """The <svg> element, whose accessible name is `label`. Text in it is escaped.

    size: (height, width) of the image, in whose pixels the boxes are
    """
    from markupsafe import escape

    height, width = size
    unit = max(size) / 320  # a pixel of the page, in pixels of the image
    frames = [_frames(change, size, unit) for change in found]
    tags: list[str] = []
    taken: list[Place] = []
    for number, change in enumerate(found, 1):
        taken.append(_free(change.box, size, WIDE * unit, HIGH * unit, taken))
        tags.append(_tag(number, taken[-1], change.kind, unit))
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
        f'<image href="{picture}" width="{width}" height="{height}"/>{"".join(frames + tags)}</svg>'
    )


def _frames(change: Change, size: tuple[int, int], unit: float) -> str:
    """A change's box, and where it was."""
    dashed = f' stroke-dasharray="{5 * unit:.1f} {3 * unit:.1f}"'
    old = "" if change.was is None else _rectangle(change.was, size, "--soft", unit, dashed)
    dash = dashed if change.kind == "lost" else ""
    return old + _rectangle(change.box, size, STROKES[change.kind], unit, dash)


def _free(
    box: Sequence[float], size: tuple[int, int], wide: float, high: float, taken: Sequence[Place]
) -> Place:
    """The upper left corner of a box's number: outside at a corner of it, or within; where no other
    number stands."""
    x0, y0, x1, y1 = np.clip(box, 0, [size[1], size[0]] * 2).tolist()
    places = [
        (min(x, size[1] - wide), y)
        for y in (y0 - high, y1, y0, y1 - high)
        for x in (x0, max(x0, x1 - wide))
        if 0 <= y <= size[0] - high
    ] or [(min(x0, size[1] - wide), 0.0)]

    def stands(x: float, y: float) -> bool:
        return any(abs(x - a) < wide and abs(y - b) < high for a, b in taken)

    return next((place for place in places if not stands(*place)), places[0])


def _tag(number: int, at: Place, kind: str, unit: float) -> str:
    x, y, wide, high = *at, WIDE * unit, HIGH * unit
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" '
        f'fill="var({STROKES[kind]})"/><text x="{x + wide / 2:.1f}" y="{y + 0.82 * high:.1f}" '
        f'font-size="{0.85 * high:.1f}" text-anchor="middle" fill="var(--paper)">{number}</text>'
    )


def _rectangle(
    box: Sequence[float], size: tuple[int, int], stroke: str, unit: float, dash: str
) -> str:
    """A box with a rim of the page's ground, which tells it from a picture of its colour."""
    ends = np.clip(box, 0, [size[1], size[0]] * 2)
    place = (
        f'x="{ends[0]:.1f}" y="{ends[1]:.1f}" width="{ends[2] - ends[0]:.1f}" '
        f'height="{ends[3] - ends[1]:.1f}" fill="none"'
    )
    lines = (("--paper", 4 * unit, ""), (stroke, 2 * unit, dash))
    return "".join(
        f'<rect {place} stroke="var({c})" stroke-width="{w:.2f}"{d}/>' for c, w, d in lines
    )
