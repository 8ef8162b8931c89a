"""`voc:DIR`: boxes as Pascal VOC keeps them, an XML file for each image.

    Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/{train,val,trainval,test}.txt

Pixels are counted from 1 and the last one is in the box (VOC2012 development kit, section 4.3):
x0 = xmin - 1, x1 = xmax. What is `difficult` is neither found nor missed. Classes are the lines of
classes.txt in DIR, else the names in all of Annotations, sorted, so that each split has the same.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import numpy as np

from edgecv.data.annotations import PictureBoxes
from edgecv.data.decode import Notes, decode
from edgecv.data.faults import SWAPPED, Faults, mended
from edgecv.data.files import SUFFIXES, open_regular, tell, text_lines
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError

SPLITS = {"train": ("train", "trainval"), "test": ("val", "test")}  # lists, the first that is there
MAX_BYTES = 1 << 22
_LAYOUT = "it needs Annotations/ and JPEGImages/"


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """The split's images. Raises DataError: folders that are not there, a file that is no XML."""
    where, root = f"voc:{argument}", Path(argument).expanduser()
    pairs, names = _found(where, root, split), _names(where, root)
    asked, notes, faults = (None if channels in (1, 3) else channels), Notes(), Faults()
    number = {name: k for k, name in enumerate(names)}

    def item(index: int) -> tuple[np.ndarray, PictureBoxes]:
        path, said = pairs[index]
        image = decode(path, asked, notes)
        return image, _boxes(said, number, image.shape[:2], faults)

    return Items(
        len(pairs), item, names, asked or 3, parallel=True,
        notes=lambda: notes.sentences() + faults.sentences(), truth="Boxes",
    )  # fmt: skip


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the classes' names, the images and their annotations; nothing is decoded."""
    where, root = f"voc:{argument}", Path(argument).expanduser()
    named = [(path.name, path) for pair in _found(where, root, split) for path in pair]
    names = _names(where, root)
    return hash_files([(f"{names} {name}", path) for name, path in named])


def _found(where: str, root: Path, split: str) -> list[tuple[Path, Path]]:
    """(image, annotation) of each, by name."""
    for folder in ("Annotations", "JPEGImages"):
        if not (root / folder).is_dir():
            what = f"has no folder {folder}" if root.is_dir() else "no such folder"
            raise DataError(where, what, f"{_LAYOUT}; {HERE}")
    images = {p.stem: p for p in sorted((root / "JPEGImages").iterdir())
              if p.name.lower().endswith(SUFFIXES) and not p.name.startswith(".")}  # fmt: skip
    said = {p.stem: p for p in (root / "Annotations").glob("*.xml")}
    lists = (root / "ImageSets" / "Main" / f"{word}.txt" for word in SPLITS[split])
    listed = next((path for path in lists if path.is_file()), None)
    if listed:
        lines = filter(None, map(str.split, text_lines(listed)))
        wanted = [line[0] for line in lines]
    else:
        wanted = sorted(images.keys() | said.keys())
    for kind, there in (("image", images), ("annotation", said)):
        if lost := [name for name in wanted if name not in there]:
            tell(where, f"{len(lost)} names have no {kind} ({lost[0]}, ...): left out")
            wanted = [name for name in wanted if name in there]
    if not wanted:
        raise DataError(where, "no image has an annotation", _LAYOUT)
    return [(images[name], said[name]) for name in wanted]


def _names(where: str, root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if path.is_file():
        lines = (line.strip() for line in text_lines(path))
        return tuple(line for line in lines if line)
    files = sorted((root / "Annotations").glob("*.xml"))
    names = sorted({n for f in files for n in _names_in(f, f.stat().st_mtime_ns)})
    if not names:
        raise DataError(where, "no annotation has an object: nothing can be judged on it")
    return tuple(names)


@cache
def _names_in(path: Path, _changed: int) -> tuple[str, ...]:
    return tuple({_text(o, "name", path) for o in _parsed(path).iter("object")})


def _boxes(
    path: Path, number: dict[str, int], size: tuple[int, int], faults: Faults
) -> PictureBoxes:
    tree = _parsed(path)
    said = tuple(_value(tree, f"size/{k}", path, default="0") for k in ("height", "width"))
    if all(said) and said != size:
        what = f"is of a picture of {said[0]:g}x{said[1]:g}, and it is {size[0]}x{size[1]} upright"
        raise DataError(str(path), what, "boxes of another size would lie elsewhere")
    corners, index, hard = [], [], []
    for found in tree.iter("object"):
        name = _text(found, "name", path)
        if name not in number:
            raise DataError(str(path), f"class {name!r} is not in classes.txt")
        box = [_value(found, f"bndbox/{k}", path) for k in ("xmin", "ymin", "xmax", "ymax")]
        low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
        if (low != box[:2]).any() and np.isfinite(box).all():
            faults.add(SWAPPED)
        corners.append([*(low - 1), *high])
        index.append(number[name])
        hard.append(_value(found, "difficult", path, default="0") == 1)
    return mended(np.array(corners), np.array(index, int), size, faults, np.array(hard, bool))


def _parsed(path: Path) -> ET.Element:
    with open_regular(path) as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES or b"<!ENTITY" in text:  # an entity may stand for any length of text
        raise DataError(str(path), "is no annotation: it is too long, or has entities of its own")
    try:
        return ET.fromstring(text)
    except ET.ParseError as error:
        raise DataError(str(path), f"is no XML: {error}") from error


def _text(tree: ET.Element, key: str, path: Path, default: str | None = None) -> str:
    text = (tree.findtext(key) or "").strip() or default
    if text is None:
        raise DataError(str(path), f"an object has no {key}")
    return text


def _value(tree: ET.Element, key: str, path: Path, default: str | None = None) -> float:
    text = _text(tree, key, path, default)
    try:
        return float(text)
    except ValueError:
        raise DataError(str(path), f"{key} is {text[:40]!r}, no number") from None
