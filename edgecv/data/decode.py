"""Image files to uint8 arrays, with Pillow."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from edgecv.errors import DataError, missing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def decode(path: Path, channels: int | None = None) -> np.ndarray:
    """The image in `path` as uint8 (H, W, C), turned upright as its EXIF orientation says.

    channels: 1 or 3 converts; None keeps grey images at 1 and makes everything else RGB
    (transparency is dropped, 16-bit grey keeps its high byte).
    Raises DataError naming the file where it is missing, truncated or not an image.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise missing("pillow", "compress", str(path)) from error
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):  # Pillow's own conversion saturates at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            grey = channels == 1 or (channels is None and image.mode in ("L", "1"))
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except FileNotFoundError as error:
        raise DataError(str(path), "no such file") from error
    except (
        OSError,
        SyntaxError,  # Pillow's word for a broken PNG
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        hint = "replace or remove the file"
        raise DataError(str(path), f"cannot be read as an image: {error}", hint) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted by relative path. Hidden files are passed over.

    Raises DataError naming a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(str(error.filename), f"cannot be listed: {error.strerror}") from error

    found = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(root, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def calibration_images(folder: Path) -> list[Path]:
    """The image files below `folder` (flat or nested), for calibration without labels.

    Raises DataError where the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(str(folder), "no such folder", "--calibration takes a folder of images")
    found = image_files(folder)
    if not found:
        hint = f"put a few hundred images in it ({' '.join(SUFFIXES)})"
        raise DataError(str(folder), "holds no images", hint)
    return found
