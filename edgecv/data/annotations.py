"""What is true of pictures beside a class: boxes and maps, in pixels of the pictures as they were,
and numbers.

    x of the network's input = x of the picture * scale_x + offset_x       (`Placement`)

A split holds them beside its pixels: `boxes.npz`, `maps.npy` and `sizes.npy`, or `numbers.npz`. No
pickle.
`placed` takes what is true of a picture to the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.placement import Placement

IGNORED = 255  # of a map: a pixel of which nothing is said


@dataclass(frozen=True)
class PictureBoxes:
    """The boxes of one picture.

    boxes: float32 (M, 4), (x0, y0, x1, y1) in pixels of the picture, x1 > x0, y1 > y0
    index: int64 (M,), of the class
    crowd: bool (M,), a region of many that is neither found nor missed (COCO's iscrowd, VOC's
           difficult)
    area:  float32 (M,), in pixels, of the object's own outline where the set has it, else the box's
    """

    boxes: np.ndarray
    index: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Boxes:
    """The boxes of every picture of a split.

    sizes:  int32 (N, 2), (height, width) of each picture as it was
    ends:   int64 (N,), where each picture's rows of the others end
    boxes, index, crowd, area: of all, as PictureBoxes
    """

    sizes: np.ndarray
    ends: np.ndarray
    boxes: np.ndarray
    index: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    FILE = "boxes.npz"

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, image: int) -> PictureBoxes:
        begin = int(self.ends[image - 1]) if image else 0
        rows = slice(begin, int(self.ends[image]))
        return PictureBoxes(self.boxes[rows], self.index[rows], self.crowd[rows], self.area[rows])

    def some(self, images: Sequence[int] | np.ndarray) -> Boxes:
        """Those pictures, in that order."""
        return Boxes.of([self[int(i)] for i in images], self.sizes[np.asarray(images, int)])

    @staticmethod
    def of(pictures: Sequence[PictureBoxes], sizes: np.ndarray) -> Boxes:
        """Of each picture its own."""
        ends = np.cumsum([len(p) for p in pictures], dtype=np.int64)
        parts: dict[str, np.ndarray] = {
            "boxes": np.zeros((0, 4), np.float32), "index": np.zeros(0, np.int64),
            "crowd": np.zeros(0, bool), "area": np.zeros(0, np.float32),
        }  # fmt: skip
        joined = {
            key: np.concatenate([none, *(getattr(p, key) for p in pictures)]).astype(none.dtype)
            for key, none in parts.items()
        }
        return Boxes(np.asarray(sizes, np.int32), ends, **joined)

    @property
    def largest(self) -> int:
        """The highest class; 0 where there is none."""
        return int(self.index.max(initial=0))

    def renumbered(self, table: np.ndarray, count: int) -> Boxes:  # noqa: ARG002
        """The same with class k called table[k], of so many."""
        return replace(self, index=np.asarray(table, np.int64)[self.index])

    def save(self, folder: Path) -> None:
        arrays = {k: getattr(self, k) for k in ("sizes", "ends", "boxes", "index", "crowd", "area")}
        np.savez(folder / self.FILE, **arrays)

    @staticmethod
    def load(folder: Path) -> Boxes:
        try:
            with np.load(folder / Boxes.FILE, allow_pickle=False) as held:
                return Boxes(**dict(held))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(str(folder), f"not boxes: {error}") from error


@dataclass(frozen=True)
class Maps:
    """The class of every pixel of every picture of a split.

    sizes: int32 (N, 2), (height, width) of each picture as it was
    flat:  uint8, the pictures' pixels one after another, row by row; IGNORED counts for nothing
    """

    sizes: np.ndarray
    flat: np.ndarray

    FILE = "maps.npy"

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, image: int) -> np.ndarray:
        """uint8 (H, W)"""
        counts = self.sizes.astype(np.int64).prod(1)
        begin, shape = int(counts[:image].sum()), tuple(map(int, self.sizes[image]))
        return self.flat[begin : begin + int(counts[image])].reshape(shape)

    def some(self, images: Sequence[int] | np.ndarray) -> Maps:
        """Those pictures, in that order."""
        return Maps.of([self[int(i)] for i in images])

    @staticmethod
    def of(maps: Sequence[np.ndarray]) -> Maps:
        """maps: uint8 (H, W) each"""
        sizes = np.array([m.shape for m in maps], np.int32).reshape(-1, 2)
        flat = np.concatenate([np.zeros(0, np.uint8), *(m.ravel() for m in maps)])
        return Maps(sizes, flat.astype(np.uint8))

    @property
    def largest(self) -> int:
        """The highest class; 0 where there is none."""
        return int(self.flat[self.flat != IGNORED].max(initial=0))

    def renumbered(self, table: np.ndarray, count: int) -> Maps:  # noqa: ARG002
        """The same with class k called table[k], of so many."""
        lut = np.full(256, IGNORED, np.uint8)
        lut[: len(table)] = table
        return replace(self, flat=lut[self.flat])

    def save(self, folder: Path) -> None:
        np.save(folder / self.FILE, self.flat, allow_pickle=False)
        np.save(folder / "sizes.npy", self.sizes, allow_pickle=False)

    @staticmethod
    def load(folder: Path) -> Maps:
        """What `save` wrote. Maps stay on disk until they are touched."""
        try:
            sizes = np.load(folder / "sizes.npy", allow_pickle=False)
            return Maps(sizes, np.load(folder / Maps.FILE, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataError(str(folder), f"not maps: {error}") from error


@dataclass(frozen=True)
class Numbers:
    """A row of numbers of every picture of a split.

    sizes:  int32 (N, 2), (height, width) of each picture as it was
    values: float64 (N, K); NaN: nothing is known of it
    """

    sizes: np.ndarray
    values: np.ndarray

    FILE = "numbers.npz"

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, image: int) -> np.ndarray:
        """float64 (K,)"""
        return np.asarray(self.values[image])

    def some(self, images: Sequence[int] | np.ndarray) -> Numbers:
        """Those pictures, in that order."""
        chosen = np.asarray(images, int)
        return Numbers(self.sizes[chosen], self.values[chosen])

    @staticmethod
    def of(rows: Sequence[np.ndarray], sizes: np.ndarray) -> Numbers:
        """rows: (K,) each"""
        return Numbers(np.asarray(sizes, np.int32), np.array(rows, np.float64))

    @property
    def largest(self) -> int:
        """The last column."""
        return self.values.shape[1] - 1

    def renumbered(self, table: np.ndarray, count: int) -> Numbers:
        """The same with column k at place table[k] of so many; of the others nothing is known."""
        values = np.full((len(self), count), np.nan)
        values[:, table] = self.values
        return replace(self, values=values)

    def save(self, folder: Path) -> None:
        np.savez(folder / self.FILE, sizes=self.sizes, values=self.values)

    @staticmethod
    def load(folder: Path) -> Numbers:
        try:
            with np.load(folder / Numbers.FILE, allow_pickle=False) as held:
                return Numbers(**dict(held))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(str(folder), f"not numbers: {error}") from error


Truth = Boxes | Maps | Numbers

LEAST_SEEN = 0.2  # of a box's own area: what shows less of an object teaches nothing of it


@overload
def placed(truth: PictureBoxes, lies: Placement, size: tuple[int, int]) -> PictureBoxes: ...
@overload
def placed(truth: np.ndarray, lies: Placement, size: tuple[int, int]) -> np.ndarray: ...
def placed(
    truth: PictureBoxes | np.ndarray, lies: Placement, size: tuple[int, int]
) -> PictureBoxes | np.ndarray:
    """What is true of a picture, in pixels of the network's input.

    truth: its boxes, or its map uint8 (H, W); lies: where the picture lies in the input
    size:  (height, width) of the input
    Boxes are cut off at the input's edge, and left out where less than LEAST_SEEN of their area is
    seen; a map takes the nearest pixel, IGNORED where there is padding.
    """
    if isinstance(truth, PictureBoxes):
        return _placed_boxes(truth, lies, size)
    rows, columns = (
        _nearest(n, offset, scale, count)
        for n, offset, scale, count in zip(size, lies.offset, lies.scale, truth.shape, strict=True)
    )
    taken = truth[rows.clip(0)[:, None], columns.clip(0)]
    taken[rows < 0] = IGNORED
    taken[:, columns < 0] = IGNORED
    return taken


def _placed_boxes(truth: PictureBoxes, lies: Placement, size: tuple[int, int]) -> PictureBoxes:
    scale = np.array([lies.scale[1], lies.scale[0]] * 2)
    whole = truth.boxes * scale + np.array([lies.offset[1], lies.offset[0]] * 2)
    seen = whole.clip(0, np.array([size[1], size[0]] * 2)).astype(np.float32)
    share = _areas(seen) / np.maximum(_areas(whole), 1e-30)
    # float32 may have closed a box that float64 holds open
    kept = (share >= LEAST_SEEN) & (seen[:, 2:] > seen[:, :2]).all(1)
    area = truth.area * scale[0] * scale[1] * share
    return PictureBoxes(
        seen[kept], truth.index[kept], truth.crowd[kept], area[kept].astype(np.float32)
    )


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)


def _nearest(n: int, offset: int, scale: float, count: int) -> np.ndarray:
    """Of each of n input pixels the picture's pixel that its centre lies in; -1: none."""
    at = np.floor((np.arange(n) + 0.5 - offset) / scale).astype(np.int64)
    # a product that falls short of whole must not lose the last pixel of the resized picture
    within = (np.arange(n) >= offset) & (np.arange(n) < offset + round(count * scale))
    return np.where(within, at.clip(0, count - 1), -1)
