"""`imagefolder:PATH`: one sub-folder for each class, with image files (nested is fine) in it.

Classes are the sub-folders' names, sorted; the same layout as torchvision's ImageFolder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data.decode import SUFFIXES, decode, image_files
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError


def items(argument: str, split: str) -> Items:  # noqa: ARG001
    """The folder's images. The path says which split it is, so `split` changes nothing."""
    files, labels, classes = _scan(argument)

    def item(index: int) -> tuple[np.ndarray, int]:
        return decode(files[index]), labels[index]

    return Items(len(files), item, classes, channels=3, parallel=True)


def fingerprint(argument: str, split: str) -> str:  # noqa: ARG001
    """SHA-256 over relative paths and file bytes; nothing is decoded."""
    root = Path(argument).expanduser()
    files, _, _ = _scan(argument)
    return hash_files([(path.relative_to(root).as_posix(), path) for path in files])


def _scan(argument: str) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """(files, labels, classes). Raises DataError for a folder that cannot be learned from."""
    where, root = f"imagefolder:{argument}", Path(argument).expanduser()
    if not root.is_dir():
        raise DataError(where, "no such folder", HERE)
    layout = "it needs one sub-folder for each class, with images in each"
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not folders:
        raise DataError(where, "has no class folders", layout)
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = image_files(folder)
        if not found:
            hint = f"remove it, or add images ({' '.join(SUFFIXES)})"
            raise DataError(f"imagefolder:{folder}", "class folder without images", hint)
        files += found
        labels += [label] * len(found)
    if len(folders) == 1:
        raise DataError(where, f"has only one class, {folders[0].name!r}", layout)
    return files, labels, tuple(folder.name for folder in folders)
