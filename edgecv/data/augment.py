"""What augmentation does to a picture whose labels lie in it: lay it elsewhere, recolour it.

    x' = x * scale_x + offset_x,  y' likewise        (`edgecv.runtime.placement.Placement`)

Pictures are uint8 (H, W, C). What a picture does not cover is PAD. `moved` is of pictures whose
labels lie nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecv.runtime.placement import Placement
from edgecv.runtime.resample import resize

if TYPE_CHECKING:
    from edgecv.methods.training.plan import Plan

PAD = 114  # grey, as letterboxes are
Region = tuple[int, int, int, int]  # top, left, bottom, right, in pixels of the canvas


def scaled(size: tuple[int, int], by: float) -> tuple[int, int]:
    """(height, width) times `by`, in whole pixels."""
    return max(1, round(size[0] * by)), max(1, round(size[1] * by))


def drawn(size: tuple[int, int], reach: float, shift: int, rng: np.random.Generator) -> Placement:
    """A picture of (height, width) laid at random into a canvas of that size.

    reach: it becomes 1 / (1 + reach) to 1 + reach times as large, the logarithm evenly spread
    shift: pixels by which it may lie further out than where it covers the canvas, or lies in it
    """
    by = float(np.exp(rng.uniform(-1, 1) * np.log1p(reach)))
    resized = scaled(size, by)
    slack = [side - new for side, new in zip(size, resized, strict=True)]
    top, left = (
        int(rng.integers(min(0, free) - shift, max(0, free) + shift + 1)) for free in slack
    )
    return placed(size, resized, (top, left))


def placed(size: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]) -> Placement:
    """The placement of a picture of `size` that becomes `resized` at `offset`."""
    return Placement(resized, offset, (resized[0] / size[0], resized[1] / size[1]))


def shown(lies: Placement, region: Region) -> Region:
    """The part of a region that the picture covers; of no area where it covers none."""
    (top, left), (high, wide) = lies.offset, lies.resized
    rows = max(region[0], top), min(region[2], top + high)
    columns = max(region[1], left), min(region[3], left + wide)
    return rows[0], columns[0], max(rows), max(columns)


def lay(
    canvas: np.ndarray, picture: np.ndarray, lies: Placement, region: Region, how: str = "bilinear"
) -> None:
    """Write the part of a picture that a region of the canvas shows, in place.

    how: "bilinear", antialiased, or "nearest" for indices
    """
    top, left, bottom, right = shown(lies, region)
    if bottom <= top or right <= left:
        return
    window = (top - lies.offset[0], left - lies.offset[1], bottom - top, right - left)
    if lies.resized == picture.shape[:2]:
        part = picture[window[0] :, window[1] :][: window[2], : window[3]]
    else:
        part = resize(picture, lies.resized, window, how)
    canvas[top:bottom, left:right] = part


def recoloured(picture: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Other contrast, brightness and, of three channels, saturation.

    reach: 0..1; contrast and saturation become 1 - reach to 1 + reach times what they were, and
           all pixels up to 64 reach lighter or darker
    """
    contrast, saturation, light = 1 + reach * rng.uniform(-1, 1, 3)
    mix = np.eye(picture.shape[2], dtype=np.float32)
    if picture.shape[2] == 3:
        mix = saturation * mix + (1 - saturation) / 3
    add = 128 * (1 - contrast) + 64 * (light - 1)
    return np.clip(picture @ (contrast * mix).astype(np.float32) + add, 0, 255).astype(np.uint8)


def moved(pixels: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Random mirror and shift of a uint8 (N,H,W,C) batch; the border is repeated."""
    n, h, w, _ = pixels.shape
    if plan.flip:
        mirror = np.asarray(rng.random(n) < 0.5)
        pixels = np.where(mirror[:, None, None, None], pixels[:, :, ::-1], pixels)
    if plan.shift:
        s = plan.shift
        padded = np.pad(pixels, ((0, 0), (s, s), (s, s), (0, 0)), mode="edge")
        dy, dx = rng.integers(0, 2 * s + 1, (2, n, 1))
        rows, columns = dy + np.arange(h), dx + np.arange(w)
        pixels = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(pixels)
