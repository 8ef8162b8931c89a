"""What is true of pictures beside a class: boxes and maps, in pixels of the pictures as they were.

    x of the network's input = x of the picture * scale_x + offset_x       (`Placement`)

A split holds them beside its pixels: `boxes.npz`, or `maps.npy` and `sizes.npy`. No pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv.errors import DataError

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

    FILE = "maps.npz"

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

    def save(self, folder: Path) -> None:
        np.savez_compressed(folder / self.FILE, sizes=self.sizes, flat=self.flat)

    @staticmethod
    def load(folder: Path) -> Maps:
        try:
            with np.load(folder / Maps.FILE, allow_pickle=False) as held:
                return Maps(**dict(held))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(str(folder), f"not maps: {error}") from error
