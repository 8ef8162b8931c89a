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
SHOWN = 12  # changes that are drawn and told of one image


def scene(pixels: np.ndarray, found: Sequence[Change], labels: Sequence[str]) -> dict[str, Any]:
    """What the page holds of one image: {"picture": data URI, "size": [height, width], "told": a
    phrase of each change drawn, "svg": the whole, "more": changes that are not drawn}.

    pixels: uint8 (H, W, C). Raises MissingExtraError.
    """
    height, width = pixels.shape[:2]
    shown = list(found[:SHOWN])
    told = [said(change, labels) for change in shown]
    picture = pictures.scene(pixels)
    return {
        "picture": picture, "size": [height, width], "told": told, "more": len(found) - len(shown),
        "svg": drawn(picture, (height, width), shown, "; ".join(told)),
    }  # fmt: skip


def drawn(picture: str, size: tuple[int, int], found: Sequence[Change], label: str) -> str:
    """The <svg> element, whose accessible name is `label`. Text in it is escaped.

    size: (height, width) of the image, in whose pixels the boxes are
    """
    from markupsafe import escape

    height, width = size
    unit = max(size) / 320  # a pixel of the page, in pixels of the image
    marks = [_marks(number, change, size, unit) for number, change in enumerate(found, 1)]
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
        f'<image href="{picture}" width="{width}" height="{height}"/>{"".join(marks)}</svg>'
    )


def _marks(number: int, change: Change, size: tuple[int, int], unit: float) -> str:
    stroke = STROKES[change.kind]
    dashed = f' stroke-dasharray="{5 * unit:.1f} {3 * unit:.1f}"'
    old = "" if change.was is None else _rectangle(change.was, size, "--soft", unit, dashed)
    dash = dashed if change.kind == "lost" else ""
    x, y = (float(np.clip(v, 0, s)) for v, s in zip(change.box, (size[1], size[0]), strict=False))
    high = 12 * unit
    x = min(x, size[1] - high * 1.2)
    y = y - high if y > high else y
    tag = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{high * 1.2:.1f}" height="{high:.1f}" '
        f'fill="var({stroke})"/><text x="{x + 0.6 * high:.1f}" y="{y + 0.82 * high:.1f}" '
        f'font-size="{0.85 * high:.1f}" text-anchor="middle" fill="var(--paper)">{number}</text>'
    )
    return old + _rectangle(change.box, size, stroke, unit, dash) + tag


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
