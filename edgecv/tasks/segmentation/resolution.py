"""From the cells of a network's output to the pixels of the image, in numpy.

    y_cell = ((y + 0.5) * scale + offset) * cells / input - 0.5

the centres of pixels between the centres of cells, as torch's interpolate does with
align_corners=False where the image fills the input. Cells whose centre lies beside the image are
padding's and have no part.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, floor

import numpy as np

IGNORED = 255  # as edgecv.data.annotations has it
_BAND = 1 << 16  # pixels looked at once: scores of so many stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Axis:
    """One side of an image over one side of the output's cells.

    low, high: int64 (N,), the two cells around each pixel's centre; share: float32 (N,), of high
    seen: bool (N,), whether the pixel lies in the input
    """

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    seen: np.ndarray

    @staticmethod
    @lru_cache(maxsize=16)
    def of(pixels: int, offset: int, scale: float, size: int, cells: int) -> Axis:
        """pixels: of the image; offset, scale: where they lie in an input of `size` pixels"""
        centre = (np.arange(pixels) + 0.5) * scale + offset
        begin, end = (cells / size * edge for edge in (offset, offset + pixels * scale))
        first = min(max(0, ceil(begin - 0.5)), cells - 1)
        last = max(min(cells - 1, floor(end - 0.5)), first)
        at = (centre * cells / size - 0.5).clip(first, last)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32)
        return Axis(low, np.minimum(low + 1, last), share, (centre > 0) & (centre < size))

    @cached_property
    def whole(self) -> bool:
        """Whether each pixel is a cell, in order."""
        return bool((self.low == np.arange(len(self.low))).all()) and not self.share.any()


def _wide(z: np.ndarray, columns: Axis) -> np.ndarray:
    """(C, h, w) cells to (C, h, W)."""
    if columns.whole:
        return z[..., : len(columns.low)]
    out = z.take(columns.low, -1)  # indexing would leave the classes innermost
    step = z.take(columns.high, -1)
    step -= out
    step *= columns.share
    out += step
    return out


class _Band:
    """A band of the image's rows, of one class after another, in memory that is kept: fresh pages
    cost a hundred times the arithmetic."""

    def __init__(self, rows: Axis, band: slice, width: int) -> None:
        self.rows, self.band = rows, band
        self.low, self.high = rows.low[band], rows.high[band]
        shape = len(self.low), width
        self.share = np.repeat(rows.share[band, None], width, 1)
        self.out, self.step = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def of(self, plane: np.ndarray) -> np.ndarray:
        """(h, W) cells to (rows, W) pixels, until the next call."""
        if self.rows.whole:
            return plane[self.band]
        plane.take(self.low, 0, self.out, "clip")  # any mode but "raise" needs no buffer
        plane.take(self.high, 0, self.step, "clip")
        self.step -= self.out
        self.step *= self.share
        self.out += self.step
        return self.out


def best(z: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """uint8 (H, W): of each pixel the class of the highest score, of equals the first.

    z: (C, h, w), C below 255; IGNORED where no score is a number, or the input has not the pixel
    """
    wide = _wide(_floats(z), columns)
    height, width = len(rows.low), len(columns.low)
    found = np.zeros((height, width), np.uint8)
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        index, highest = found[band], np.full(found[band].shape, -np.inf, np.float32)
        better, called = np.empty(index.shape, bool), np.empty(index.shape, np.uint8)
        mixed = _Band(rows, band, width)
        for k, plane in enumerate(wide):
            scores = mixed.of(plane)
            np.greater(scores, highest, out=better)
            # a later class has the higher number; a masked copy takes 200 times as long
            np.multiply(better.view(np.uint8), np.uint8(k), out=called)
            np.maximum(index, called, out=index)
            np.fmax(highest, scores, out=highest)
        index[np.isneginf(highest)] = IGNORED
    found[~rows.seen] = IGNORED
    found[:, ~columns.seen] = IGNORED
    return found


def resized(z: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """float32 (C, H, W) of cells (C, h, w)."""
    wide = _wide(_floats(z), columns)
    out = np.empty((len(z), len(rows.low), len(columns.low)), np.float32)
    mixed = _Band(rows, slice(0, len(rows.low)), len(columns.low))
    for plane, pixels in zip(wide, out, strict=True):
        pixels[...] = mixed.of(plane)
    return out


def nearest(cells: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """uint8 (H, W) of classes (h, w), each pixel its nearest cell's; IGNORED as in `best`."""
    taken = [np.where(axis.share < 0.5, axis.low, axis.high) for axis in (rows, columns)]
    values = cells[taken[0][:, None], taken[1]]
    known = (values >= 0) & (values < IGNORED) & rows.seen[:, None] & columns.seen
    return np.where(known, values, IGNORED).astype(np.uint8)


def _floats(z: np.ndarray) -> np.ndarray:
    return z if z.dtype == np.float32 else z.astype(np.float32)
