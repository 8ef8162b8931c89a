"""`masks:DIR`: the class of every pixel, as index PNGs beside the images.

    images/NAME.jpg, masks/NAME.png, classes.txt (a name a line, in the order of the indices)

DIR may hold the splits' own folders instead (train/, and val/ or test/); classes.txt is in DIR or
above. 255 counts for nothing, and so does a class that is named so (unlabelled, void, ignore): it
is no class, and those after it move up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data.annotations import IGNORED
from edgecv.data.decode import FORMATS, MAX_PIXELS, Notes, decode
from edgecv.data.files import open_regular, scan, tell, text_lines
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError, missing

SPLITS = {"train": ("train",), "test": ("val", "valid", "test")}
UNNAMED = ("unlabelled", "unlabeled", "void", "ignore", "ignored")
_NAMES = "classes.txt"
_LAYOUT = "it needs images/, masks/ of the same stems, and classes.txt"


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """The split's images. Raises DataError: folders or names that are not there; a mask of another
    size than its image, no index image, or with an index beyond the names."""
    where = f"masks:{argument}"
    pairs, listed, _ = _found(where, Path(argument).expanduser(), split)
    names = tuple(name for name in listed if name.lower() not in UNNAMED)
    if len(names) < len(listed):
        tell(where, f"pixels of class {', '.join(set(listed) - set(names))} count for nothing")
    table = np.full(256, IGNORED, np.uint8)
    table[: len(listed)] = [names.index(n) if n in names else IGNORED for n in listed]
    asked, notes = (None if channels in (1, 3) else channels), Notes()

    def item(index: int) -> tuple[np.ndarray, np.ndarray]:
        path, mask = pairs[index]
        image, said = decode(path, asked, notes), _indices(mask)
        if said.shape != image.shape[:2]:
            sizes = [f"{h}x{w}" for h, w in (said.shape, image.shape[:2])]
            raise DataError(str(mask), f"is {sizes[0]}, and its image {sizes[1]}")
        found = np.flatnonzero(np.bincount(said.ravel(), minlength=256))
        wrong = found[(found >= len(listed)) & (found != IGNORED)]
        if wrong.size:
            what = f"has index {wrong[0]}, and classes.txt {len(listed)} names"
            raise DataError(str(mask), what, "255 is for pixels that count for nothing")
        return image, table[said]

    return Items(
        len(pairs), item, names, asked or 3, parallel=True, notes=notes.sentences, truth="Maps"
    )


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the names, the images and the masks; nothing is decoded."""
    pairs, _, names = _found(f"masks:{argument}", Path(argument).expanduser(), split)
    named = [(f"{p.parent.name}/{p.name}", p) for pair in pairs for p in pair]
    return hash_files([(_NAMES, names), *named])


def _found(
    where: str, root: Path, split: str
) -> tuple[list[tuple[Path, Path]], tuple[str, ...], Path]:
    """((image, mask) of each, every name of classes.txt, that file)"""
    folder = root
    if not (root / "images").is_dir():
        parts = (root / word for word in SPLITS[split])
        folder = next((part for part in parts if (part / "images").is_dir()), root)
    for needed in ("images", "masks"):
        if not (folder / needed).is_dir():
            what = f"has no folder {needed}" if root.is_dir() else "no such folder"
            raise DataError(where, what, f"{_LAYOUT}; {HERE}")
    path = next((p for p in (folder / _NAMES, folder.parent / _NAMES) if p.is_file()), None)
    if path is None:
        raise DataError(where, f"has no {_NAMES}", f"{_LAYOUT}, a name a line")
    names = tuple(filter(None, map(str.strip, text_lines(path))))
    if not 0 < len(names) <= IGNORED or len(set(names)) < len(names):
        raise DataError(str(path), f"has {len(names)} names", "1 to 255 of them, each once")
    images, masks = (
        {p.relative_to(folder / kind).with_suffix("").as_posix(): p
         for p in scan(folder / kind).files} for kind in ("images", "masks")
    )  # fmt: skip
    for kind, lost in (("mask", images.keys() - masks), ("image", masks.keys() - images)):
        if lost:
            tell(where, f"{len(lost)} have no {kind} ({min(lost)}, ...): left out")
    both = [name for name in images if name in masks]
    if not both:
        raise DataError(where, "no image has a mask of its stem", _LAYOUT)
    return [(images[name], masks[name]) for name in both], names, path


def _indices(path: Path) -> np.ndarray:
    """uint8 (H, W) of an index image: grey, or with a palette. Raises DataError."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing("pillow", "compress", str(path)) from error
    with open_regular(path) as file:
        try:
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DataError(str(path), f"has more than {MAX_PIXELS:,} pixels")
                mode, kind, held = opened.mode, opened.format, np.asarray(opened)
        except DataError:
            raise
        except Exception as error:  # Pillow's readers let many types through
            raise DataError(str(path), "cannot be read as an image", "replace it") from error
    if kind not in ("PNG", "BMP", "GIF", "TIFF", "PPM"):
        raise DataError(str(path), f"is {kind}, which does not keep indices", "save it as PNG")
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        what = f"is of colours ({mode}), no index image"
        raise DataError(str(path), what, "a pixel is the number of its class")
    if held.max(initial=0) > IGNORED or held.min(initial=0) < 0:
        raise DataError(str(path), f"has index {held.max()}", "0 to 254, 255 for ignored")
    return held.astype(np.uint8)
