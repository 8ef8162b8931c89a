"""Image files of a folder: which there are, and which are passed over and why.

Only regular files are ever opened: a pipe or a device called .jpg would wait for ever. A folder
that a link leads to is read once, so links in a circle end. Nothing is left out in silence: what
is passed over is counted, and `tell` says it.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from edgecv.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    ".npy",
)
_SHOWN = 3  # names or suffixes that a reason gives

NO_IMAGE = "not named as images"
HIDDEN = "hidden"
IRREGULAR = "no regular files"
AGAIN = "links to a folder that is read already"
OUTSIDE = "outside the class folders"


@dataclass
class Found:
    """Image files below a folder, sorted by relative path, and what was passed over by reason.

    read: the folders that were read, as (device, inode)
    """

    files: list[Path] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=dict)
    read: set[tuple[int, int]] = field(default_factory=set)

    def skip(self, reason: str, name: str) -> None:
        self.passed.setdefault(reason, []).append(name)

    def note(self) -> str:
        """What was passed over, in one line: how many, and why; "" where nothing was."""
        total = sum(map(len, self.passed.values()))
        parts = [f"{len(n)} {reason} ({_examples(reason, n)})" for reason, n in self.passed.items()]
        return f"{total} passed over: {'; '.join(parts)}" if total else ""


def _examples(reason: str, names: list[str]) -> str:
    """The first few of what was passed over: suffixes of what has some, else names."""
    shown = [Path(n).suffix or n for n in names] if reason == NO_IMAGE else names
    shown = list(dict.fromkeys(n if n.isprintable() else ascii(n) for n in shown))
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


@cache
def tell(where: str, note: str) -> None:
    """Warn of something about a source; the same once."""
    log.warning("%s: %s", where, note)


def identity(path: Path) -> tuple[int, int]:
    """What a folder is, whatever path leads to it. Raises DataError where it cannot be read."""
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror}") from error
    return info.st_dev, info.st_ino


def scan(folder: Path, found: Found | None = None) -> Found:
    """Image files below `folder`, by the ending of their names; links are followed, each once.

    found: goes on from it, so that several folders share what was read and passed over
    Raises DataError naming a folder that cannot be listed.
    """
    found = found or Found()
    found.read.add(identity(folder))
    own: list[Path] = []
    queue = [folder]
    while queue:
        here = queue.pop()
        for entry in _listed(here):
            path = here / entry.name
            if entry.name.startswith("."):
                found.skip(HIDDEN, entry.name)
            elif _is_folder(entry):
                if (me := identity(path)) in found.read:
                    found.skip(AGAIN, entry.name)
                else:
                    found.read.add(me)
                    queue.append(path)
            elif not entry.name.lower().endswith(SUFFIXES):
                found.skip(NO_IMAGE, entry.name)
            elif not _may_be_read(entry):
                found.skip(IRREGULAR, entry.name)
            else:
                own.append(path)
    found.files += sorted(own, key=lambda path: path.relative_to(folder).as_posix())
    return found


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder: by name, and its own folders before links to others."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: (e.is_symlink(), e.name))
    except OSError as error:
        raise DataError(str(folder), f"cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """A regular file; or a link to nothing, which is an error and said by who opens it."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted by relative path; says what is passed over.

    Raises DataError naming a folder that cannot be listed.
    """
    found = scan(folder)
    if note := found.note():
        tell(str(folder), note)
    return found.files


def is_there(path: Path) -> bool:
    """Whether it exists; False too of a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def text_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises DataError: it cannot be read, or is no UTF-8."""
    with open_regular(path) as file:
        try:
            return file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(str(path), "is no text (UTF-8)", "save it as plain text") from error


def calibration_images(folder: Path) -> list[Path]:
    """The image files below `folder` (flat or nested), for calibration without labels.

    Raises DataError where the folder is missing or holds no image.
    """
    if not folder.is_dir():
        what = "is a file, not a folder of images" if folder.is_file() else "no such folder"
        raise DataError(str(folder), what, "give a folder of images, an .npy or an .npz file")
    found = image_files(folder)
    if not found:
        hint = f"put a few hundred images in it ({' '.join(SUFFIXES)})"
        raise DataError(str(folder), "holds no images", hint)
    return found


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; a pipe or a device is refused and not waited for.

    Raises DataError naming the file.
    """
    try:
        # Without O_NONBLOCK a pipe waits for its writer before it can be told from a file.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        what = "cannot be read: it is a link to nothing" if path.is_symlink() else "no such file"
        raise DataError(str(path), what) from error
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DataError(str(path), "is no regular file", "replace or remove it")
    return os.fdopen(number, "rb")
