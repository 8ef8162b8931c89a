"""Films and cameras through PyAV (FFmpeg's libraries): frames in, drawn frames out.

A file is opened as what its ending says and as nothing else: FFmpeg would tell by content, and a
playlist that is called .mp4 makes it open whatever addresses stand in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.files import open_regular
from edgecv.errors import DataError, StoreError, missing, one_line

CODECS = ("libx264", "mpeg4")  # the first that is here; every FFmpeg has the second
TICK = Fraction(1, 60000)  # of written times; MPEG-4 takes no finer ones than 1/65535 s
_ROOM = "see that the disk has room"
WHOLE = 0.9  # of the time that a film says it takes: one that ends before is cut off
RATE = 25  # frames a second of a film that says neither times nor a rate


def library() -> Any:
    """PyAV. Raises MissingExtraError."""
    try:
        import av
    except ImportError as error:
        raise missing("av", "video", "films and cameras") from error
    av.logging.set_level(None)
    return av


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    """A container with a film in it, as FFmpeg's format `kind`; of v4l2 the device. Raises
    DataError."""
    av = library()
    file = None if kind == "v4l2" else open_regular(path)
    try:
        with av.open(file or str(path), format=kind) as container:
            if not container.streams.video:
                raise DataError(str(path), "holds no film, only sound", "give a film")
            yield container
    except (av.FFmpegError, OSError) as error:  # the latter of an empty file
        what = f"cannot be read as {kind}: {_said(error)}"
        raise DataError(str(path), what, "it is damaged, or of another kind") from error
    finally:
        if file:
            file.close()


def frames_in(path: Path, kind: str) -> int:
    """How many frames a film says that it has; 0 where it does not say. Raises DataError."""
    with _opened(path, kind) as container:
        return int(container.streams.video[0].frames)


def frames(path: Path, kind: str, every: int = 1) -> Iterator[tuple[int, float, np.ndarray]]:
    """(number from 0, seconds from the beginning, uint8 (H, W, 3)) of every so-manyth frame,
    upright. Raises DataError: damaged or cut off; frames before that were given."""
    with _opened(path, kind) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or RATE)
        begin: float | None = None
        number, at = -1, 0.0
        for number, frame in enumerate(container.decode(stream)):
            at = number / rate if frame.time is None else float(frame.time)
            begin = at if begin is None else begin
            if number % every == 0:
                yield number, at - begin, _upright(frame)
        if number < 0:
            raise DataError(str(path), "holds no frame that can be decoded", "give another film")
        ends, says = at - (begin or 0.0) + 1 / rate, _length(container, stream)
        if ends < WHOLE * says:
            what = f"says that it takes {says:.2f} s, and ends after {ends:.2f} s"
            raise DataError(str(path), what, "it was cut off: copy it again")


def _length(container: Any, stream: Any) -> float:
    """Seconds that a film says it takes; 0 where only its sound may say so."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _said(error: Any) -> str:
    """What FFmpeg says, without numbers of its own."""
    return one_line(error.strerror or error, 120)


def _upright(frame: Any) -> np.ndarray:
    """A telephone's film lies on its side and says so."""
    pixels = frame.to_ndarray(format="rgb24")
    turned = np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90) % 4)
    return np.ascontiguousarray(turned)


class Film:
    """An .mp4 of frames that are added. It appears under its name when it is `kept`, whole.

    Frames are shown at their own times; sides are made even by repeating the last row or column,
    as the coding of colours wants it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._out: Any = None
        self._last = -1
        self._size = (0, 0)

    def add(self, pixels: np.ndarray, time_s: float) -> None:
        """pixels: uint8 (H, W, 3), all of the first one's size. Raises DataError, StoreError."""
        av = library()
        even = [(0, side % 2) for side in pixels.shape[:2]]
        pixels = np.pad(pixels, [*even, (0, 0)], mode="edge")
        try:
            if self._out is None:
                self._begin(av, pixels)
            if pixels.shape[:2] != self._size:
                what = f"a frame of {pixels.shape[:2]} after frames of {self._size}"
                raise DataError(str(self.path), what, "a film has one size")
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            self._last = frame.pts = max(round(time_s / TICK), self._last + 1)
            frame.time_base = TICK
            self._out.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            self.discard()
            raise StoreError(str(self.path), _said(error), _ROOM) from error

    def _begin(self, av: Any, pixels: np.ndarray) -> None:
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._size = (pixels.shape[0], pixels.shape[1])
        self._out = av.open(str(self._partial), "w", format="mp4")
        self._stream = self._out.add_stream(codec, rate=30)
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TICK
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = 4_000_000

    def keep(self) -> None:
        """Write the end, and show the film under its name; nothing where no frame was added.
        Raises StoreError."""
        if self._out is None:
            return
        av = library()
        try:
            self._out.mux(self._stream.encode())
            self._out.close()
        except av.FFmpegError as error:
            self.discard()
            raise StoreError(str(self.path), _said(error), _ROOM) from error
        self._partial.replace(self.path)
        self._out = None

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._out is not None:
            self._out.close()
            self._out = None
        self._partial.unlink(missing_ok=True)
