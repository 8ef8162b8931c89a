"""Where a head's rows lie on the input: cells of maps and the boxes that each begins with.

Rows run map after map, and in a map row by row. The anchors of a cell follow each other (SSD,
RetinaFace), or each anchor has a map of its own (YOLOv5).

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Anchors = tuple[tuple[tuple[float, float], ...], ...]


def cells(size: tuple[int, int], strides: tuple[float, ...]) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of each map: the input's size over the stride, rounded up."""
    # less a thousandth, for 320 / 106.67 is three cells
    return tuple((_ceil(size[0] / s - 1e-3), _ceil(size[1] / s - 1e-3)) for s in strides)


def count(size: tuple[int, int], strides: tuple[float, ...], anchors: Anchors = ()) -> int:
    """Cells of all maps, or the boxes that they begin with."""
    each = [len(of_map) for of_map in anchors] or [1] * len(strides)
    maps = zip(cells(size, strides), each, strict=True)
    return sum(high * wide * boxes for (high, wide), boxes in maps)


def check(
    rows: int, size: tuple[int, int], strides: tuple[float, ...], anchors: Anchors = ()
) -> None:
    """Raises ValueError: a head of so many rows has other places. Before they are made, for a
    damaged manifest may ask for any number of them."""
    if (places := count(size, strides, anchors)) != rows:
        raise ValueError(f"{rows} rows at {places} places")


def _ceil(count: float) -> int:
    return -int(-count // 1)


@lru_cache(maxsize=16)
def grid(size: tuple[int, int], strides: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, 2), (column, row) of each cell, and (N, 1), its stride in pixels; do not
    write."""
    places, steps = [], []
    for (high, wide), stride in zip(cells(size, strides), strides, strict=True):
        y, x = np.indices((high, wide), np.float32)
        places.append(np.stack([x.ravel(), y.ravel()], 1))
        steps.append(np.full((high * wide, 1), stride, np.float32))
    return np.concatenate(places), np.concatenate(steps)


@lru_cache(maxsize=16)
def priors(size: tuple[int, int], strides: tuple[float, ...], anchors: Anchors) -> np.ndarray:
    """float32 (N, 4), (cx, cy, w, h) in input pixels: every anchor of every cell, about the cell's
    middle. Do not write."""
    maps = []
    for stride, shapes in zip(strides, anchors, strict=True):
        place, _ = grid(size, (stride,))
        middle = np.repeat((place + 0.5) * np.float32(stride), len(shapes), 0)
        maps.append(
            np.concatenate([middle, np.tile(np.array(shapes, np.float32), (len(place), 1))], 1)
        )
    return np.concatenate(maps)


@lru_cache(maxsize=16)
def given(priors: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """float32 (P, 4), as they are said. Do not write."""
    return np.array(priors, np.float32)


@lru_cache(maxsize=16)
def anchor_grid(
    size: tuple[int, int], strides: tuple[float, ...], anchors: Anchors
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 (N, 2) cells, (N, 1) strides and (N, 2) anchors in pixels, an anchor's whole map
    before the next one's. Do not write."""
    places, steps, shapes = [], [], []
    for stride, of_map in zip(strides, anchors, strict=True):
        place, step = grid(size, (stride,))
        for shape in of_map:
            places.append(place)
            steps.append(step)
            shapes.append(np.tile(np.array(shape, np.float32), (len(place), 1)))
    return np.concatenate(places), np.concatenate(steps), np.concatenate(shapes)
