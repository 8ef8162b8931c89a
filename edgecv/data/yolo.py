"""`yolo:DATA.yaml` or `yolo:DIR`: boxes as Ultralytics keeps them, a text file for each image.

A line is `class cx cy w h`, or `class x1 y1 x2 y2 ...` for an outline, in shares of the picture's
width and height. data.yaml has `path`, `train`, `val` (or `test`) and `names`, a list or a mapping;
a folder has images/ and labels/, the split's own inside them where there are such, and names in
data.yaml or classes.txt. The label of .../images/NAME.jpg is .../labels/NAME.txt
(https://docs.ultralytics.com/datasets/detect/).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.annotations import PictureBoxes
from edgecv.data.decode import Notes, decode
from edgecv.data.faults import Faults, mended
from edgecv.data.files import image_files, is_there, open_regular, tell, text_lines
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError, RecipeError

SPLITS = {"train": ("train",), "test": ("val", "valid", "test")}  # their words for ours
MAX_CLASSES = 100_000  # a number beyond it is a mistake, not a class
_NAMES = "classes.txt"
_LINE = "a line is: class cx cy w h, in shares of the width and height"
_FAR = 2.0  # a share beyond it is meant in pixels


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """The split's images. Raises DataError: no such folder, names or labels; a wrong line."""
    where = f"yolo:{argument}"
    files, names = _found(where, Path(argument).expanduser(), split)
    labels = [_label_of(path) for path in files]
    bare = sum(not path.is_file() for path in labels)
    if bare == len(files):
        raise DataError(where, f"none of {bare} images has a label", f"no such file {labels[0]}")
    if bare:
        tell(where, f"{bare} images have no label file: nothing is to be found there")
    _tell_of_strays(where, files, labels)
    if names is None:
        largest = max((int(_read(p, None)[0].max(initial=0)) for p in labels), default=0)
        names = tuple(map(str, range(largest + 1)))
    asked, notes, faults = (None if channels in (1, 3) else channels), Notes(), Faults()

    def item(index: int) -> tuple[np.ndarray, PictureBoxes]:
        image = decode(files[index], asked, notes)
        size = image.shape[:2]
        classes, shares, areas = _read(labels[index], names)
        boxes = shares * np.array([size[1], size[0]] * 2)
        return image, mended(boxes, classes, size, faults, area=areas * (size[0] * size[1]))

    return Items(
        len(files), item, names, asked or 3, parallel=True,
        notes=lambda: notes.sentences() + faults.sentences(), truth="Boxes",
    )  # fmt: skip


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the classes' names, the images and their labels; nothing is decoded."""
    files, names = _found(f"yolo:{argument}", Path(argument).expanduser(), split)
    labels = (path for path in map(_label_of, files) if path.is_file())
    return hash_files([(f"{names} {p.parent.name}/{p.name}", p) for p in (*files, *labels)])


def _found(where: str, path: Path, split: str) -> tuple[list[Path], tuple[str, ...] | None]:
    """The images, sorted, and the classes' names; None where nothing says them."""
    own = path / "data.yaml"
    if path.is_file() or own.is_file():
        file = path if path.is_file() else own
        data = _yaml(file)
        return _images(where, _named(file, data, split)), _names(file, data)
    if not (path / "images").is_dir():
        what = "has no folder images" if path.is_dir() else "no such file or folder"
        raise DataError(where, what, f"a data.yaml, or a folder with images/ and labels/; {HERE}")
    names = path / _NAMES
    said = tuple(text_lines(names)) if names.is_file() else None
    if said is not None:
        said = tuple(name.strip() for name in said if name.strip())
        if not said:
            raise DataError(str(names), "holds no names", "a name a line, or remove it")
    return _images(where, [_of_split(path / "images", split)]), said


def _of_split(folder: Path, split: str) -> Path:
    """The split's folder in images/, or images/ itself where it is not parted."""
    return next((p for word in SPLITS[split] if (p := folder / word).is_dir()), folder)


def _yaml(path: Path) -> dict[str, Any]:
    from edgecv import strict_yaml

    try:
        data, _ = strict_yaml.read(path)
    except RecipeError as error:
        raise DataError(error.where, error.what, error.hint) from error
    if not isinstance(data, dict):
        raise DataError(str(path), "is no mapping", "it has keys path, train, val and names")
    return data


def _names(path: Path, data: dict[str, Any]) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: names", f"has not every number from 0 to {len(names) - 1}")
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(
            f"{path}: names", "is missing", "a list, or a mapping from numbers to names"
        )
    if data.get("nc", len(names)) != len(names):
        raise DataError(f"{path}: nc", f"is {data['nc']}, and there are {len(names)} names")
    return tuple(map(str, names))


def _named(path: Path, data: dict[str, Any], split: str) -> list[Path]:
    """What data.yaml names for the split: folders, or files that list images a line."""
    word = next((w for w in SPLITS[split] if data.get(w)), None)
    if word is None:
        words = " or ".join(SPLITS[split][::2])
        raise DataError(str(path), f"has no key {words}", "it names a folder of images")
    said = data[word] if isinstance(data[word], list) else [data[word]]
    base = Path(str(data.get("path") or ".")).expanduser()
    # beside the file; as it stands; and the file's own folder, for a set that was moved
    roots = [path.parent / base, base, path.parent]
    found = []
    for name in map(str, said):
        tried = [root / name for root in roots]
        there = next((place for place in tried if is_there(place)), None)
        if there is None and (path.parent / "images").is_dir():
            there = _of_split(path.parent / "images", split)
            tell(str(path), f"{word}: {name} is not there: {there} is read")
        if there is None:
            raise DataError(f"{path}: {word}", f"no such file or folder {tried[0]}", HERE)
        found.append(there)
    return found


def _images(where: str, places: list[Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files += image_files(place)
        else:
            lines = filter(None, map(str.strip, text_lines(place)))
            listed = [Path(line) if Path(line).is_absolute() else place.parent / line
                      for line in lines]  # fmt: skip
            there = [path for path in listed if is_there(path) and path.is_file()]
            if lost := len(listed) - len(there):
                tell(where, f"{lost} images that {place.name} lists are not there: left out")
            files += there
    if not files:
        raise DataError(where, f"no images in {', '.join(map(str, places))}")
    return files


def _label_of(image: Path) -> Path:
    """.../images/a/b.jpg: .../labels/a/b.txt, by the last folder of that name; else beside it."""
    parts = list(image.parts)
    at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i] == "images"), None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _tell_of_strays(where: str, files: list[Path], labels: list[Path]) -> None:
    """Label files beside the others whose image is not there are counted."""
    known, folders = set(labels), {path.parent for path in labels if path.parent.is_dir()}
    folders -= {path.parent for path in files}  # text beside images may be anything
    strays = [p for folder in folders for p in folder.glob("*.txt")
              if p not in known and p.name != _NAMES]  # fmt: skip
    if strays:
        note = f"{len(strays)} label files have no image ({min(p.name for p in strays)}, ...)"
        tell(where, f"{note}: left out")


def _read(path: Path, names: tuple[str, ...] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes int64 (M,), x0 y0 x1 y1 (M, 4) and outlines' areas (M,), in shares; NaN for none).

    Equal lines are one box, as Ultralytics has it. Raises DataError naming the line.
    """
    if not path.is_file():
        return np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)
    with open_regular(path) as file:
        lines = file.read().decode("utf-8", "replace").splitlines()
    rows = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows[tuple(_numbers(f"{path}:{number}", line))] = number
    classes, boxes, areas = [], [], []
    for row, number in rows.items():
        index, where = row[0], f"{path}:{number}"
        if not 0 <= index < (len(names) if names else MAX_CLASSES) or index != int(index):
            hint = f"there are {len(names)} names" if names else "a whole number from 0"
            raise DataError(where, f"class {index:g} is none", hint)
        if any(abs(v) > _FAR for v in row[1:]):
            raise DataError(where, "is not in shares of the picture", _LINE)
        box, area = _box(np.array(row[1:]))
        classes.append(int(index))
        boxes.append(box)
        areas.append(area)
    return np.array(classes, np.int64), np.array(boxes).reshape(-1, 4), np.array(areas, float)


def _numbers(where: str, line: str) -> list[float]:
    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        row = []
    if not row or (len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0)) or row[0] != row[0]:
        raise DataError(where, f"{line.strip()[:40]!r} is no label", _LINE)
    return row


def _box(row: np.ndarray) -> tuple[np.ndarray, float]:
    """(x0 y0 x1 y1, the outline's area or NaN)"""
    if len(row) == 4:
        return np.concatenate([row[:2] - row[2:] / 2, row[:2] + row[2:] / 2]), np.nan
    x, y = row[::2], row[1::2]
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2  # the shoelace formula
    return np.array([x.min(), y.min(), x.max(), y.max()]), float(area)
