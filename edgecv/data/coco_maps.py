"""`coco-maps:ANNOTATIONS.json[:IMAGES_DIR]`: COCO's outlines as the class of every pixel.

Class 0 is "background", what no outline covers; then the categories in the order of their ids.
Where outlines overlap the smaller one is seen. A region of many (`iscrowd`) counts for nothing.
Outlines are filled by pycocotools. Files and images as `edgecv.data.coco` finds them.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from edgecv.data import coco
from edgecv.data.annotations import IGNORED
from edgecv.data.decode import Notes, decode
from edgecv.data.faults import Faults
from edgecv.data.source import Items
from edgecv.errors import DataError, not_installed

BACKGROUND = "background"
FAR = 10  # sides of the image that an outline may reach
LONGEST = 1 << 20  # pixels, or four times the image's
BARE = "annotations without an outline, left out"


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The images that the file names, with a map each. Raises DataError, as `coco.items`; more
    than 254 categories; MissingExtraError."""
    held, notes, faults = coco.read(argument), Notes(), Faults()
    if len(held.ids) >= IGNORED:
        raise DataError(str(held.json), f"has {len(held.ids)} categories", "254 fit into a map")
    asked = None if channels in (1, 3) else channels
    number = {own: k for k, own in enumerate(held.ids, 1)}

    def item(index: int) -> tuple[np.ndarray, np.ndarray]:
        image = decode(held.files[index], asked, notes)
        size = coco.checked(held, index, image)
        return image, _map(held.rows[index], number, size, faults, str(held.json))

    return Items(
        len(held.files), item, (BACKGROUND, *held.names), asked or 3, parallel=True,
        notes=lambda: notes.sentences() + faults.sentences(), truth="Maps", ids=held.ids,
    )  # fmt: skip


fingerprint = coco.fingerprint


def _map(
    rows: list[dict[str, Any]],
    number: dict[int, int],
    size: tuple[int, int],
    faults: Faults,
    where: str,
) -> np.ndarray:
    """uint8 (H, W): crowds below all others, then the largest first."""
    outlined = []
    for row in rows:
        if (covered := _covered(row, size, where)) is None:
            faults.add(BARE)
        else:
            outlined.append((not row.get("iscrowd"), -int(covered.sum()), row, covered))
    found = np.zeros(size, np.uint8)
    for _, _, row, covered in sorted(outlined, key=lambda each: each[:2]):
        found[covered] = IGNORED if row.get("iscrowd") else number[row["category_id"]]
    return found


def _covered(row: dict[str, Any], size: tuple[int, int], where: str) -> np.ndarray | None:
    """bool (H, W) of an annotation's polygons or run lengths; None where it has none."""
    said, name = row.get("segmentation"), f"{where}: annotation {row.get('id')!r}"
    try:
        if isinstance(said, list):
            polygons = [[float(v) for v in points] for points in said if len(points) >= 6]
            if not polygons or not np.isfinite(np.concatenate(polygons)).all():
                return None
            return _filled(polygons, size, name)
        if isinstance(said, dict):
            height, width = (int(v) for v in said["size"])
            if (height, width) != size or sum(runs := _runs(said["counts"])) != height * width:
                raise DataError(name, f"its outline is of {height}x{width}, the image is "
                                f"{size[0]}x{size[1]}")  # fmt: skip
            return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        return None
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(name, "its segmentation is no outline") from error


def _filled(polygons: list[list[float]], size: tuple[int, int], name: str) -> np.ndarray:
    """bool (H, W) of what they enclose. Raises DataError: pycocotools would take memory for every
    pixel of an outline that is no image's."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise not_installed("pycocotools", "coco-maps") from error
    far = max(np.abs(points).max() for points in polygons)
    if far > FAR * max(size):
        raise DataError(name, f"its outline reaches {far:g} pixels, the image {max(size)}")
    steps = (np.abs(np.diff(np.reshape(p[: len(p) // 2 * 2], (-1, 2)), axis=0)) for p in polygons)
    if sum(float(s.max(1).sum()) for s in steps) > max(LONGEST, 4 * size[0] * size[1]):
        raise DataError(name, "its outline is longer than all of its image's pixels")
    return mask.decode(mask.merge(mask.frPyObjects(polygons, *size))).astype(bool)


def _runs(counts: Any) -> list[int]:
    """Lengths of runs, of pixels without and with it, of a list or of pycocotools' text
    (common/maskApi.c, rleFrString). Raises ValueError, TypeError, IndexError: they are none.

    pycocotools itself writes beyond its memory where they are of another size than the image."""
    if isinstance(counts, list):
        found = [operator.index(v) for v in counts]
    else:
        found, at = [], 0
        while at < len(counts):
            value = shift = 0
            while True:
                digit = ord(counts[at]) - 48
                value |= (digit & 31) << shift
                at, shift = at + 1, shift + 5
                if not 0 <= digit < 64 or shift > 40:
                    raise ValueError(counts[:40])
                if not digit & 32:
                    break
            if digit & 16:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
    if min(found, default=0) < 0:
        raise ValueError("a run below 0")
    return found
