"""Antialiased separable resampling of uint8 images, equal to Pillow's.

    out[i] = clip((sum_j k[i, j] * in[j] + 2^21) >> 22),   k = round(2^22 * w / sum(w))
    w[i, j] = f((j + 0.5 - c_i) / max(s, 1)),              c_i = (i + 0.5) * s,  s = in / out

along the rows, rounded to uint8, then along the columns (Pillow, src/libImaging/Resample.c).
f is the triangle (bilinear) or the Keys cubic with a = -0.5 (bicubic), stretched by s when the
image shrinks, which is what makes it antialiased. k are 23-bit integers and pixels 8-bit, so a
float64 matrix product holds every sum exactly: the answer does not depend on the CPU, its
BLAS or its threads, and it is Pillow's own. Only the window that is asked for is computed.

From version 13 on Pillow goes along the columns first where the height shrinks by more than twice
what the width does (python-pillow/Pillow#9549), and rounds differently there, by a level or so.
Which order it is here hangs on the sizes and never on the Pillow that the host has: a crop goes
along the rows first always, as in every Pillow before (it differs for photographs more than twice
as tall as wide); a stretch, where many an upright photograph is such a case, and a letterbox go as
Pillow 13 does.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np

_BITS = 22  # Pillow's PRECISION_BITS for 8-bit pixels
# One product takes _ROWS rows, or _VALUES values of a row, and one band of at most _SPAN source
# samples and _OUTPUTS outputs: narrow, so that few of its weights are zero; in the cache; and
# below the 2^18 multiplications from which OpenBLAS wakes its threads, which on a busy machine
# made a resize eight times slower and on a free one hardly faster.
_SPAN, _OUTPUTS, _ROWS, _VALUES = 96, 12, 64, 224


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
INTERPOLATIONS = ("bicubic", "bilinear", "nearest")


@dataclass(frozen=True)
class Band:
    """Outputs out0 and on are source[src0:src0 + n] @ weights; weights float64 (n, outputs)."""

    out0: int
    src0: int
    weights: np.ndarray


def columns_come_first(image: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether Pillow 13 goes along the columns first, from (H, W, ...) to (height, width)."""
    return image[0] - size[0] > max(0, 2 * (image[1] - size[1]))


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    how: str,
    columns_first: bool = False,
) -> np.ndarray:
    """The window (top, left, height, width) of the image resized to size (height, width).

    image: uint8 (H, W, C); the result is uint8 (height, width, C) of the window, contiguous.
    """
    top, left, height, width = window
    if columns_first and how != "nearest":
        turned = resize(image.transpose(1, 0, 2), size[::-1], (left, top, width, height), how)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))
    if how == "nearest":
        rows = _nearest(image.shape[0], size[0])[top : top + height]
        columns = _nearest(image.shape[1], size[1])[left : left + width]
        return image[rows[:, None], columns]
    across = _bands(image.shape[1], size[1], left, width, how)
    down = _bands(image.shape[0], size[0], top, height, how)
    first, last = down[0].src0, down[-1].src0 + len(down[-1].weights)
    return _columns(_rows(image[first:last], across, width), down, first, height)


def _rows(image: np.ndarray, bands: tuple[Band, ...], width: int) -> np.ndarray:
    """(H, W, C) to (H, width, C): the horizontal pass."""
    height, _, channels = image.shape
    out = np.empty((height, width, channels), np.uint8)
    for y in range(0, height, _ROWS):
        strip = image[y : y + _ROWS]
        for band in bands:
            n, outputs = band.weights.shape
            # planar, because a product contracts the last axis
            planar = strip[:, band.src0 : band.src0 + n].transpose(2, 0, 1).astype(np.float64, "C")
            sums = (planar.reshape(-1, n) @ band.weights).reshape(channels, len(strip), outputs)
            view = out[y : y + _ROWS, band.out0 : band.out0 + outputs]
            view[...] = _to_uint8(sums).transpose(1, 2, 0)
    return out


def _columns(image: np.ndarray, bands: tuple[Band, ...], first: int, height: int) -> np.ndarray:
    """(H, width, C), whose row 0 is source row `first`, to (height, width, C)."""
    _, width, channels = image.shape
    out = np.empty((height, width * channels), np.uint8)
    flat = image.reshape(len(image), -1)
    for band in bands:
        n, outputs = band.weights.shape
        source = flat[band.src0 - first : band.src0 - first + n].astype(np.float64)
        for x in range(0, source.shape[1], _VALUES):
            sums = band.weights.T @ source[:, x : x + _VALUES]
            out[band.out0 : band.out0 + outputs, x : x + _VALUES] = _to_uint8(sums)
    return out.reshape(height, width, channels)


def _to_uint8(sums: np.ndarray) -> np.ndarray:
    """Pillow's clip8: add a half, shift right by 22 (towards minus infinity), clip. In place."""
    sums += float(1 << (_BITS - 1))
    sums *= 1.0 / (1 << _BITS)  # a power of two: exact
    # after the clip no value is negative, so truncation is the shift's floor
    np.clip(sums, 0.0, 255.0, out=sums)
    return sums.astype(np.uint8)


@lru_cache(maxsize=16)
def _bands(source: int, target: int, start: int, count: int, how: str) -> tuple[Band, ...]:
    """Pillow's coefficients for outputs [start, start + count) of an axis, as dense bands."""
    kernel, support = _FILTERS[how]
    scale = source / target
    stretch = max(scale, 1.0)
    reach = support * stretch
    centers = (np.arange(start, start + count) + 0.5) * scale
    low = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((centers + reach + 0.5).astype(np.int64), source)
    taps = np.arange(ceil(reach) * 2 + 1)
    index = low[:, None] + taps
    weights = kernel((index - centers[:, None] + 0.5) / stretch)
    weights[index >= high[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights))
    bands, i = [], 0
    while i < count:
        j = int(np.searchsorted(high, max(low[i] + _SPAN, high[i]), side="right"))
        j = min(max(j, i + 1), i + _OUTPUTS, count)
        block = np.zeros((int(high[j - 1] - low[i]), j - i))
        for row in range(i, j):
            n, at = int(high[row] - low[row]), int(low[row] - low[i])
            block[at : at + n, row - i] = fixed[row, :n]
        bands.append(Band(i, int(low[i]), block))
        i = j
    return tuple(bands)


@lru_cache(maxsize=16)
def _nearest(source: int, target: int) -> np.ndarray:
    """Source index of each output; a running sum in float64, as Pillow's (Geometry.c)."""
    scale = source / target
    steps = np.full(target, scale)
    steps[0] = scale * 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), source - 1)
