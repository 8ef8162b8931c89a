"""What is wrong with boxes of a data set, what is done about it, and how often it was.

    no number      a coordinate is NaN or infinite                        left out
    no size        a side of zero or below                                left out
    outside        no part lies in the picture                            left out
    swapped        corners that say where a box is, in another order      turned
    cut            a part lies more than half a pixel outside             cut off at the edge

Nothing is done in silence: `Faults.sentences` says it once the split is read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from edgecv.data.annotations import PictureBoxes

NUMBERS = "boxes with a coordinate that is no number, left out"
SIZE = "boxes of no size, left out"
OUTSIDE = "boxes outside their picture, left out"
CUT = "boxes that reach outside their picture, cut off at its edge"
SWAPPED = "boxes with swapped corners, turned"
_ROUNDING = 0.5  # pixels; files round their coordinates


@dataclass
class Faults:
    """Counts by what was found. Shared by threads."""

    found: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, count: int = 1) -> None:
        """So many more of a fault of the list above."""
        with self._lock:
            if count:
                self.found[what] = self.found.get(what, 0) + count

    def sentences(self) -> list[str]:
        return [f"{what}: {n}" for what, n in sorted(self.found.items())]


def mended(
    boxes: np.ndarray,
    index: np.ndarray,
    size: tuple[int, int],
    faults: Faults,
    crowd: np.ndarray | None = None,
    area: np.ndarray | None = None,
) -> PictureBoxes:
    """A picture's boxes as they can be used.

    boxes: (M, 4) x0 y0 x1 y1 in pixels; index: (M,), of the class; size: (height, width)
    crowd: bool (M,), None for none; area: (M,) in pixels, NaN or None where it is the box's own
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    with np.errstate(over="ignore"):
        area = np.full(len(boxes), np.nan) if area is None else np.asarray(area, np.float32)
    edge = np.array([size[1], size[0]] * 2, np.float64)
    finite = np.isfinite(boxes).all(1)
    sized = finite & (boxes[:, 2:] > boxes[:, :2]).all(1)
    with np.errstate(invalid="ignore"):
        cut = boxes.clip(0, edge).astype(np.float32)
        inside = sized & (cut[:, 2:] > cut[:, :2]).all(1)
        reaching = inside & (np.abs(boxes - cut) > _ROUNDING).any(1)
    faults.add(NUMBERS, int((~finite).sum()))
    faults.add(SIZE, int((finite & ~sized).sum()))
    faults.add(OUTSIDE, int((sized & ~inside).sum()))
    faults.add(CUT, int(reaching.sum()))
    own = (cut[:, 2:] - cut[:, :2]).prod(1)
    area = np.where(np.isfinite(area) & (area > 0), area, own).astype(np.float32)
    kept = PictureBoxes(cut, np.asarray(index, np.int64), np.asarray(crowd, bool), area)
    return PictureBoxes(*(getattr(kept, k)[inside] for k in ("boxes", "index", "crowd", "area")))
