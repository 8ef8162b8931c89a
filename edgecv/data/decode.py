"""Image files to uint8 arrays, with Pillow, from the formats listed here and no others.

Pillow knows formats that run programs (EPS starts Ghostscript) and tells them by content, whatever
the file is called; so it is given a list. A file is refused before it is decoded when it announces
more pixels than MAX_PIXELS: some kilobytes may unpack to gigabytes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgecv.data import stacks
from edgecv.data.files import open_regular
from edgecv.errors import DataError, missing

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
MAX_PIXELS = 1 << 26  # 8192 x 8192; a camera of 61 megapixels stays below
_UNREADABLE = "cannot be read as an image"
_BITS_PER_SAMPLE = 258  # TIFF's tag
_DARK_BITS = 14  # 16-bit files that hold no more than this look dark: said, not guessed at


@dataclass
class Notes:
    """What a user should know of how the files of a source were read. Shared by threads.

    deep:        files of 16 bits a sample
    largest:     the largest value in them
    transparent: files that are not opaque
    paged:       TIFF files of several pages, of which the first alone is read
    """

    deep: int = 0
    largest: int = 0
    transparent: int = 0
    paged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw_deep(self, largest: int) -> None:
        with self._lock:
            self.deep, self.largest = self.deep + 1, max(self.largest, largest)

    def saw_transparent(self) -> None:
        with self._lock:
            self.transparent += 1

    def saw_pages(self) -> None:
        with self._lock:
            self.paged += 1

    def sentences(self) -> list[str]:
        said, bits = [], self.largest.bit_length()
        if self.deep and bits <= _DARK_BITS:
            said.append(
                f"{self.deep} files of 16 bits hold no value above {(1 << bits) - 1}: if that is "
                f"{bits}-bit data, it is read too dark; scale it to 16 bits, or save 8"
            )
        if self.transparent:
            said.append(f"{self.transparent} files have transparent pixels: their colours are used")
        if self.paged:
            said.append(f"{self.paged} files have several pages: the first is used")
        return said


def decode(path: Path, channels: int | None = None, notes: Notes | None = None) -> np.ndarray:
    """The image in `path` as uint8 (H, W, C), turned upright as its EXIF orientation says.

    channels: 1 or 3 converts; None keeps grey images at 1 and makes everything else RGB; of any
              other number the file has so many (`edgecv.data.stacks`). A .npy array keeps its own
    notes:    what a user should know of how it was read is added here
    Transparency is dropped, as torchvision drops it; 16 bits keep their high byte (of a TIFF with
    10, 12 or 14 bits a sample: their highest eight); a GIF gives its first frame.
    Raises DataError naming the file where it is missing, no regular file, truncated, too large, or
    not an image of these formats.
    """
    with open_regular(path) as file:
        if path.suffix.lower() == stacks.SUFFIX:
            return stacks.read_npy(path, file, (notes or Notes()).saw_deep)
        pixels = _decoded(path, file, channels, notes or Notes())
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _decoded(path: Path, file: BinaryIO, channels: int | None, notes: Notes) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise missing("pillow", "images", str(path)) from error
    hint = "replace or remove the file"
    try:
        opened = Image.open(file, formats=FORMATS)
        width, height = opened.size
    except UnidentifiedImageError as error:
        raise DataError(str(path), _what_it_is(file), hint) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        what = f"has more than {MAX_PIXELS:,} pixels"
        raise DataError(str(path), what, "shrink it, or remove it") from error
    except Exception as error:  # Pillow's readers let many types through
        raise DataError(
            str(path), "cannot be read as an image: its header is damaged", hint
        ) from error
    if width * height > MAX_PIXELS:
        what = f"is {width}x{height}: more than {MAX_PIXELS:,} pixels"
        raise DataError(str(path), what, "shrink it, or remove it")
    bits = _bits(opened, file)
    if channels not in (None, 1, 3):
        return _stack(path, opened, channels, bits, notes)
    try:
        opened.load()
        image = _upright(opened)
    except MemoryError as error:
        raise DataError(str(path), f"is {width}x{height}: no memory for it", hint) from error
    except Exception as error:
        raise DataError(
            str(path), "cannot be read as an image: it is damaged or truncated", hint
        ) from error
    if opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1:
        notes.saw_pages()
    _check_depth(path, image, opened.format)
    return _bytes(image, bits, channels, notes)


def _check_depth(path: Path, image: Image.Image, kind: str | None) -> None:
    if image.mode == "F" or (image.mode == "I" and kind != "PPM"):
        what = "holds 32-bit numbers, of which nothing says which is black and which white"
        raise DataError(str(path), what, "convert it to 8 or 16 bits")


def _stack(path: Path, opened: Image.Image, channels: int, bits: int, notes: Notes) -> np.ndarray:
    """uint8 (H, W, channels) of a file that has so many."""
    width, height = opened.size
    if width * height * channels > 4 * MAX_PIXELS:
        what = f"is {width}x{height} of {channels} channels: more than {4 * MAX_PIXELS:,} values"
        raise DataError(str(path), what, "cut it up")

    def page(image: Image.Image) -> np.ndarray:
        _check_depth(path, image, opened.format)
        return _bytes(_upright(image), bits, 1, notes)

    try:
        opened.load()
        one = _upright(opened) if getattr(opened, "n_frames", 1) == 1 else opened
        return stacks.channels_of(str(path), one, channels, page)
    except DataError:
        raise
    except Exception as error:
        what = "cannot be read as an image: it is damaged or truncated"
        raise DataError(str(path), what, "replace or remove the file") from error


def _what_it_is(file: BinaryIO) -> str:
    """Why a file is refused, in the user's words."""
    file.seek(0)
    start = file.read(16)
    if start[:4] in (b"%!PS", b"\xc5\xd0\xd3\xc6"):
        return "is PostScript, a program, and not run"
    if not start:
        return "is empty"
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    kind = {b"avif": "AVIF", b"heic": "HEIC", b"mif1": "HEIF", b"heix": "HEIC"}.get(brand)
    known = ", ".join(FORMATS)
    return f"is {kind or 'no image'} that can be read here ({known}), or is damaged"


def _bits(image: Image.Image, file: BinaryIO) -> int:
    """Bits a sample in the file: 8 unless it says more."""
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        return max(int(b) for b in found) if isinstance(found, tuple) and found else 8
    if image.format == "PNG":
        place = file.tell()
        file.seek(24)  # after the signature, IHDR's head, width and height
        depth = file.read(1)
        file.seek(place)
        return depth[0] if depth else 8
    return 16 if image.mode.startswith("I") else 8


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; a damaged EXIF block says nothing."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _bytes(image: Image.Image, bits: int, channels: int | None, notes: Notes) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow's own conversion saturates at 255
        deep = np.asarray(image)
        if bits >= 16:
            notes.saw_deep(int(deep.max()))
        shift = min(max(bits - 8, 0), 8)
        image = Image.fromarray(np.clip(deep >> shift, 0, 255).astype(np.uint8))
    elif bits >= 16:  # of several channels Pillow keeps the high byte alone
        colours = [name for name in image.getbands() if name != "A"]
        high = max(int(np.asarray(image.getchannel(name)).max()) for name in colours)
        notes.saw_deep(256 * high + 255 if high else 0)
    clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if clear and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
        notes.saw_transparent()
    grey = channels == 1 or (channels is None and image.mode in ("L", "LA", "La", "1"))
    return np.asarray(image.convert("L" if grey else "RGB"))
