"""`imagefolder:PATH`: one sub-folder for each class, with image files (nested is fine) in it.

Classes are the sub-folders' names, sorted; the same layout as torchvision's ImageFolder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data.decode import Notes, decode
from edgecv.data.files import HIDDEN, OUTSIDE, SUFFIXES, Found, identity, scan, tell
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The folder's images. The path says which split it is, so `split` changes nothing."""
    asked = None if channels in (1, 3) else channels  # which the device's own code converts to
    files, labels, classes = _scan(argument)
    notes = Notes()

    def item(index: int) -> tuple[np.ndarray, int]:
        return decode(files[index], asked, notes), labels[index]

    return Items(len(files), item, classes, asked or 3, parallel=True, notes=notes.sentences)


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
    found = Found(read={identity(root)})
    folders = _folders(where, root, found)
    if not folders:
        raise DataError(where, "has no class folders", layout)
    labels: list[int] = []
    for label, folder in enumerate(folders):
        before = len(found.files)
        scan(folder, found)
        if len(found.files) == before:
            hint = f"remove it, or add images ({' '.join(SUFFIXES)})"
            raise DataError(f"imagefolder:{folder}", "class folder without images", hint)
        labels += [label] * (len(found.files) - before)
    if len(folders) == 1:
        raise DataError(where, f"has only one class, {folders[0].name!r}", layout)
    if note := found.note():
        tell(where, note)
    return found.files, labels, tuple(folder.name for folder in folders)


def _folders(where: str, root: Path, found: Found) -> list[Path]:
    """The class folders, links among them; what else lies there is passed over.

    Raises DataError where two of them are one folder: its images would be of two classes.
    """
    folders: dict[tuple[int, int], Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            found.skip(HIDDEN, path.name)
        elif not path.is_dir():
            found.skip(OUTSIDE, path.name)
        else:
            first = folders.setdefault(identity(path), path)
            if first != path or identity(path) in found.read:
                other = repr(first.name) if first != path else "the folder of all classes"
                what = f"class folders {path.name!r} and {other} are the same folder"
                raise DataError(where, what, "remove the link")
    found.read |= folders.keys()
    return list(folders.values())
