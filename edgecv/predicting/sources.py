"""Where pictures come from: image files, folders of them, films, a camera.

What a name is, is told by the name: `camera:N` or `/dev/videoN`, a folder, else the ending.

At import the standard library and numpy. Image files are read by `edgecv.data.decode` (Pillow; .npy
without it), films and cameras by `edgecv.predicting.video` (PyAV).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgecv.data.files import SUFFIXES, image_files
from edgecv.errors import DataError

# ending -> FFmpeg's name of the format: nothing else is tried, whatever the file holds
FILMS = {
    ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska",
    ".avi": "avi", ".mpg": "mpeg", ".mpeg": "mpeg", ".ts": "mpegts",
}  # fmt: skip
_CAMERA = re.compile(r"camera:(\d{1,3})|/dev/video(\d{1,3})")


@dataclass(frozen=True)
class Picture:
    """One picture that is to be answered.

    name:   of the file, as it was given or found below the folder given; of the camera
    place:  where a drawn one goes below the folder of results
    load:   reads it: uint8 (H, W, C). Raises DataError: it cannot be read
    frame:  its number in a film from 0, None of an image file
    time_s: when it is shown, seconds from the film's beginning
    """

    name: str
    place: Path
    load: Callable[[], np.ndarray]
    frame: int | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class Source:
    """Pictures of one kind.

    count:   how many; None where only the end tells
    film:    whether they are frames, to be kept as one film
    files:   the files that are read
    endless: it ends where somebody stops it
    """

    name: str
    pictures: Callable[[], Iterator[Picture]]
    count: int | None
    film: bool = False
    files: Sequence[Path] = ()
    endless: bool = False


def source(text: str, channels: int, every: int = 1, apart: Path | None = None) -> Source:
    """What `text` names, for a network of so many channels.

    every: of a film and of a camera, one frame of so many
    apart: a folder below which nothing is read: that of the results
    Raises DataError: there is no such file, camera or kind; a folder without images;
    MissingExtraError: a film, and PyAV is not installed.
    """
    if match := _CAMERA.fullmatch(text):
        return _camera(int(match[1] or match[2]), every)
    path = Path(text)
    if path.is_dir():
        return _folder(path, channels, apart)
    if not path.exists():
        raise DataError(text, "no such file or folder", "or camera:0, the first camera")
    ending = path.suffix.lower()
    if ending in SUFFIXES:
        return _files(text, [(text, Path(path.name), path)], channels)
    if ending in FILMS:
        return _film(path, every)
    known = f"images: {' '.join(SUFFIXES)}; films: {' '.join(FILMS)}"
    raise DataError(text, f"of {ending or 'no ending'}, is no image or film by its name", known)


def _folder(folder: Path, channels: int, apart: Path | None) -> Source:
    own = apart.resolve() if apart else None
    every = image_files(folder)
    if not every:
        hint = f"images end in {' '.join(SUFFIXES)}; films are given by their names"
        raise DataError(str(folder), "holds no images", hint)
    found = [p for p in every if not own or own not in p.resolve().parents]
    if not found and own != folder.resolve():
        raise DataError(str(folder), "holds no images but those of --save", "give their folder")
    if not found:
        raise DataError(str(folder), "is read and written", "give --save another folder")
    return _files(str(folder), [(str(p), p.relative_to(folder), p) for p in found], channels)


def _files(name: str, named: list[tuple[str, Path, Path]], channels: int) -> Source:
    def pictures() -> Iterator[Picture]:
        for shown, place, path in named:
            yield Picture(shown, place, partial(_read, path, channels))

    return Source(name, pictures, len(named), files=[path for _, _, path in named])


def _read(path: Path, channels: int) -> np.ndarray:
    from edgecv.data.decode import decode

    return decode(path, channels)


def _film(path: Path, every: int) -> Source:
    from edgecv.predicting import video

    count = video.frames_in(path, FILMS[path.suffix.lower()])

    def pictures() -> Iterator[Picture]:
        frames = video.frames(path, FILMS[path.suffix.lower()], every)
        return _shown(frames, str(path), Path(path.name))

    return Source(str(path), pictures, -(-count // every) if count else None, True, [path])


def _camera(number: int, every: int) -> Source:
    from edgecv.predicting import video

    name = f"camera:{number}"
    device = Path(f"/dev/video{number}")
    if not device.exists():
        raise DataError(name, f"no such camera: {device} is not here", "ls /dev/video*")

    def pictures() -> Iterator[Picture]:
        return _shown(video.frames(device, "v4l2", every), name, Path(f"camera-{number}"))

    return Source(name, pictures, None, True, endless=True)


def _shown(
    frames: Iterator[tuple[int, float, np.ndarray]], name: str, place: Path
) -> Iterator[Picture]:
    for number, time_s, pixels in frames:
        yield Picture(name, place, partial(np.asarray, pixels), number, time_s)
