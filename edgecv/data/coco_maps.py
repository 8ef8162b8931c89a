"""`coco-maps:ANNOTATIONS.json[:IMAGES_DIR]`: COCO's outlines as the class of every pixel.

Class 0 is "background", what no outline covers; then the categories in the order of their ids.
Where outlines overlap the smaller one is seen. A region of many (`iscrowd`) counts for nothing.
Outlines are filled by pycocotools. Files and images as `edgecv.data.coco` finds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.data import coco
from edgecv.data.annotations import IGNORED
from edgecv.data.decode import Notes, decode
from edgecv.data.faults import Faults
from edgecv.data.source import Items
from edgecv.errors import DataError, not_installed

BACKGROUND = "background"
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
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise not_installed("pycocotools", "coco-maps") from error
    said, name = row.get("segmentation"), f"{where}: annotation {row.get('id')}"
    try:
        if isinstance(said, list):
            polygons = [[float(v) for v in points] for points in said if len(points) >= 6]
            if not polygons or not np.isfinite(np.concatenate(polygons)).all():
                return None
            packed = mask.merge(mask.frPyObjects(polygons, *size))
        elif isinstance(said, dict):
            height, width = (int(v) for v in said["size"])
            counts = said["counts"]
            if (height, width) != size or (
                isinstance(counts, list) and sum(map(int, counts)) != height * width
            ):
                raise DataError(name, f"its outline is of {height}x{width}, the image is "
                                f"{size[0]}x{size[1]}")  # fmt: skip
            packed = mask.frPyObjects(said, *size) if isinstance(counts, list) else said
        else:
            return None
        return mask.decode(packed).astype(bool)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(name, "its segmentation is no outline") from error
