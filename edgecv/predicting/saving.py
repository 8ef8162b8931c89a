"""Answers on disk: drawn pictures, films, arrays. Each appears whole, and its name says of what.

    cat.jpg       cat.jpg          JPEG, PNG, BMP and WebP keep their names and kinds
    scan.tif      scan.tif.png     what cannot be written alike becomes PNG
    cat.jpg       cat.jpg.npz      of a network without a task: its outputs, an array each
    clip.mov      clip.mov.mp4     (clip.mp4 keeps its name)

What lies below a folder keeps its place there. Of two that would have one name the second gets a
number: "cat-2.jpg". A file that is read is never written.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import RecipeError, StoreError, missing
from edgecv.files import check_folder
from edgecv.predicting.sources import Picture
from edgecv.predicting.video import Film
from edgecv.runtime import npy

# ending -> Pillow's name of the format, and how it is written
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", {"quality": 92})),
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"quality": 92}),
}


class Kept:
    """A folder of results. Made where it is not there."""

    def __init__(self, folder: Path, read: Iterable[Path], arrays: bool) -> None:
        """read: every file that is read; arrays: answers are arrays and not drawn.

        Raises StoreError: it is no folder, or one that cannot be written to; MissingExtraError:
        Pillow is not installed, and pictures are to be drawn.
        """
        check_folder(folder, "--save")
        if not arrays:
            _pillow()
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._arrays = folder, arrays
        self._read = {(s.st_dev, s.st_ino) for s in (p.stat() for p in read if p.exists())}
        self._taken: set[Path] = set()

    def path(self, picture: Picture) -> Path:
        """Where the answer to a picture goes: no other's place. Raises RecipeError: what lies there
        is read."""
        place = picture.place
        if self._arrays:
            number = "" if picture.frame is None else f"-{picture.frame:06d}"
            place = place.with_name(f"{place.name}{number}.npz")
        elif picture.frame is not None and place.suffix.lower() != ".mp4":
            place = place.with_name(f"{place.name}.mp4")
        elif picture.frame is None and place.suffix.lower() not in KINDS:
            place = place.with_name(f"{place.name}.png")
        free, again = place, 2
        while free in self._taken:
            free, again = place.with_name(f"{place.stem}-{again}{place.suffix}"), again + 1
        self._taken.add(free)
        path = self.folder / free
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) in self._read:
            what = f"would write over {path}, which is read"
            raise RecipeError("--save", what, "give another folder")
        return path

    def picture(self, path: Path, pixels: np.ndarray) -> None:
        """uint8 (H, W, 3) as the file's ending says. Raises StoreError, as `arrays` and `film`."""
        kind, options = KINDS[path.suffix.lower()]
        buffer = io.BytesIO()
        _pillow().fromarray(pixels).save(buffer, kind, **options)
        _write(path, buffer.getvalue())

    def arrays(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """What numpy.load reads; numpy.savez has no room for an output that is called "file"."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as held:
            for name, values in arrays.items():
                held.writestr(f"{name}.npy", npy.written(values))
        _write(path, buffer.getvalue())

    def film(self, path: Path) -> Film:
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return Film(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A StoreError of what the disk says, by the name that was to be written."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StoreError(str(path), what, "give --save another folder") from error


def _write(path: Path, data: bytes) -> None:
    """A file that is the old one or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing("pillow", "images", "--save") from error
    return Image
