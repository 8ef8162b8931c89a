"""What a network's answer on one image is made of.

Imported on devices: the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple


class Detection(NamedTuple):
    """One object: the index of its class, its label (the index as text without labels), its score
    in 0..1 and its box (x0, y0, x1, y1) in pixels of the given image."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    label: str
    score: float
    box: tuple[float, float, float, float]


class Prediction(NamedTuple):
    """One class: its index, its label (the index as text without labels), its score in 0..1."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    label: str
    score: float


class Measured(NamedTuple):
    """One number: its place in the output, its name and its unit ("" where none is known), and its
    value in that unit."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    label: str
    unit: str
    value: float
