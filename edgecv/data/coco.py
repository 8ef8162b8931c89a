"""`coco:ANNOTATIONS.json` or `coco:ANNOTATIONS.json:IMAGES_DIR`: boxes as COCO keeps them.

`bbox` is x, y, width, height in pixels; `area` is the outline's; `iscrowd` marks a region of many.
Classes are numbered from 0 in the order of their ids (https://cocodataset.org/#format-data), and
images stand in the order of theirs, in which pycocotools looks at them: of equal scores the first
counts. Images are looked for in IMAGES_DIR, else in the places where people keep them, `_places`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.annotations import PictureBoxes
from edgecv.data.decode import Notes, decode
from edgecv.data.faults import Faults, mended
from edgecv.data.files import is_there, open_regular, tell
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError

_LAYOUT = "a COCO file has lists images, annotations and categories"


@dataclass(frozen=True)
class Set:
    """What the file says. files: of the images that are there; rows: the annotations of each."""

    json: Path
    files: list[Path]
    sizes: list[tuple[int, int] | None]
    rows: list[list[dict[str, Any]]]
    ids: tuple[int, ...]
    names: tuple[str, ...]


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The images that the file names. The file says which split it is, so `split` is not asked.

    Raises DataError: not such a file, a class that it does not name, no annotation, no image.
    """
    held, notes, faults = read(argument), Notes(), Faults()
    asked = None if channels in (1, 3) else channels
    number = {own: k for k, own in enumerate(held.ids)}

    def item(index: int) -> tuple[np.ndarray, PictureBoxes]:
        image = decode(held.files[index], asked, notes)
        size = checked(held, index, image)
        return image, _boxes(held.rows[index], number, size, faults)

    return Items(
        len(held.files), item, held.names, asked or 3, parallel=True,
        notes=lambda: notes.sentences() + faults.sentences(), truth="Boxes", ids=held.ids,
    )  # fmt: skip


def fingerprint(argument: str, split: str) -> str:  # noqa: ARG001
    """SHA-256 over the file and the images that it names; nothing is decoded."""
    held = read(argument)
    named = [(path.name, path) for path in held.files]
    return hash_files([(held.json.name, held.json), *named])


def checked(held: Set, index: int, image: np.ndarray) -> tuple[int, int]:
    """(height, width) of an image. Raises DataError: the file says another one."""
    said, size = held.sizes[index], (image.shape[0], image.shape[1])
    if said not in (None, size):
        what = f"is {size[0]}x{size[1]} upright, and {held.json.name} says {said[0]}x{said[1]}"
        raise DataError(str(held.files[index]), what, "objects of another size would lie elsewhere")
    return size


def _boxes(
    rows: list[dict[str, Any]], number: dict[int, int], size: tuple[int, int], faults: Faults
) -> PictureBoxes:
    corners = np.array([_corners(row) for row in rows], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    index = np.array([number[row["category_id"]] for row in rows], np.int64)
    crowd = np.array([bool(row.get("iscrowd")) for row in rows], bool)
    area = np.array([_number(row.get("area")) for row in rows], np.float64)
    return mended(corners, index, size, faults, crowd, area)


def _corners(row: dict[str, Any]) -> list[float]:
    """x, y, width, height; NaN where they are no four numbers."""
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return [np.nan] * 4
    return [_number(v) for v in box]


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:  # whole numbers have no end in JSON
        return np.nan


def read(argument: str) -> Set:
    """The file, and where its images are. Raises DataError."""
    path, folder = _parted(argument)
    data = _loaded(f"coco:{argument}", path)
    categories = sorted(data["categories"], key=lambda c: c["id"])
    ids = tuple(c["id"] for c in categories)
    names = tuple(str(c.get("name", c["id"])) for c in categories)
    for kind, seen in (("id", ids), ("name", names)):
        twice = next((v for i, v in enumerate(seen) if v in seen[:i]), None)
        if twice is not None:
            raise DataError(str(path), f"has two categories of the {kind} {twice!r}")
    rows = _by_image(path, data, set(ids))
    files, sizes, kept, absent = [], [], [], []
    places = [folder] if folder else _places(path)
    for image in sorted(data["images"], key=lambda image: (str(type(image["id"])), image["id"])):
        found = _found(image["file_name"], places)
        if found is None:
            absent.append(image["file_name"])
            continue
        said = image.get("height"), image.get("width")
        files.append(found)
        sizes.append(_size(path, said) if all(said) else None)
        kept.append(rows.get(image["id"], []))
    looked = ", ".join(map(str, places))
    if not files:
        what = f"none of its {len(data['images'])} images is in {looked}"
        raise DataError(f"coco:{argument}", what, "write coco:ANNOTATIONS.json:IMAGES_DIR")
    if absent:
        note = f"{len(absent)} of its {len(data['images'])} images are not there ({absent[0]}, ...)"
        tell(f"coco:{argument}", f"{note}: left out with their annotations")
    if bare := sum(not r for r in kept):
        tell(f"coco:{argument}", f"{bare} images have no annotation: nothing is to be found there")
    return Set(path, files, sizes, kept, ids, names)


def _size(path: Path, said: tuple[Any, Any]) -> tuple[int, int]:
    """(height, width). Raises DataError: they are no counts."""
    if not all(isinstance(v, int | float) and v == v // 1 for v in said):
        raise DataError(str(path), f"an image is of height and width {said!r}", "whole numbers")
    return int(said[0]), int(said[1])


def _by_image(path: Path, data: dict[str, Any], ids: set[int]) -> dict[Any, list[dict[str, Any]]]:
    """The annotations by their image's id. Raises DataError."""
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    known = {image["id"] for image in data["images"]}
    if len(known) < len(data["images"]):
        raise DataError(str(path), "has two images of one id")
    lost = 0
    for row in data["annotations"]:
        # tables that had gaps write whole numbers as 1.0, which is the same key
        if not isinstance(row.get("category_id"), int | float) or row["category_id"] not in ids:
            what = f"annotation {row.get('id')!r} is of category {row.get('category_id')!r}"
            raise DataError(str(path), what, f"its {len(ids)} categories have no such id")
        if isinstance(row.get("image_id"), int | float | str) and row["image_id"] in known:
            rows[row["image_id"]].append(row)
        else:
            lost += 1
    if lost:
        tell(str(path), f"{lost} annotations are of images that it does not name: left out")
    return rows


def _loaded(where: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(where, "no such file", HERE)
    with open_regular(path) as file:
        try:
            data = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(str(path), f"is no JSON: {error}", _LAYOUT) from error
    for key, needed in (("images", "file_name"), ("annotations", "image_id"), ("categories", "id")):
        rows = data.get(key) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise DataError(str(path), f"has no list {key!r}", _LAYOUT)
        if not rows:
            raise DataError(str(path), f"has no {key}: nothing can be judged on it")
        own = {"images": ("id", needed), "categories": ("id",)}.get(key, ())
        kinds = {"id": int | str, "file_name": str}
        if not all(isinstance(r.get(k), kinds[k]) for r in rows for k in own):
            raise DataError(str(path), f"one of {key} has no {' or no '.join(own)}", _LAYOUT)
    if not all(type(c["id"]) is int for c in data["categories"]):
        raise DataError(str(path), "a category's id is no whole number", _LAYOUT)
    return data


def _parted(argument: str) -> tuple[Path, Path | None]:
    """The file and the folder of images, None where it is not said. Raises DataError."""
    head, colon, folder = argument.partition(".json:")
    if not colon:
        return Path(argument).expanduser(), None
    if not (path := Path(folder).expanduser()).is_dir():
        raise DataError(f"coco:{argument}", f"no folder {folder!r}", HERE)
    return Path(f"{head}.json").expanduser(), path


def _places(path: Path) -> list[Path]:
    """Folders that exist, nearest first: beside the file, and beside a folder annotations/ that it
    is in, of the split's name (instances_val2017.json: val2017)."""
    split = path.stem.rpartition("_")[2]
    roots = [path.parent, path.parent.parent]
    tried = [root / sub for root in roots for sub in ("", "images", split, f"images/{split}")]
    return [place for place in tried if place.is_dir()]


def _found(name: str, places: list[Path]) -> Path | None:
    tried = (place / part for part in dict.fromkeys((name, Path(name).name)) for place in places)
    return next((path for path in tried if is_there(path) and path.is_file()), None)
