"""Images of any number of channels: `.npy` arrays and stacks of grey pages in a TIFF.

.npy    uint8 (H, W) or (H, W, C); uint16, of which the high byte is kept, as of image files of
        16 bits; floats in 0..1. Read with allow_pickle=False; nothing is unpacked that the
        file is too short for
.tif    a page a channel, each grey and of one size; or one page whose samples Pillow
        knows (grey and alpha, RGB and alpha, CMYK)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.accepted import from_float, from_pillow

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

SUFFIX = ".npy"
MAX_BYTES = 1 << 30  # of one array; a satellite's tile of 13 channels is far below
_WANTED = "save uint8 (H, W, C) with numpy.save"


def read_npy(path: Path, file: BinaryIO, saw_deep: Callable[[int], None]) -> np.ndarray:
    """uint8 (H, W, C) from a .npy file.

    saw_deep: called with the largest value of an array of 16 bits
    Raises DataError naming the file: damaged, no numbers, no image.
    """
    where = str(path)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}[version]  # fmt: skip
        shape, _, dtype = read(file)
        start = file.tell()
        held = file.seek(0, 2) - start
    except Exception as error:  # numpy lets many types through
        raise DataError(where, "is no .npy file, or a damaged one", _WANTED) from error
    if dtype.hasobject:
        raise DataError(where, "holds Python objects, which are code and not loaded", _WANTED)
    if math.prod(shape) * dtype.itemsize != held:
        what = f"says {dtype} {shape} and holds {held:,} bytes"
        raise DataError(where, what, "save it again")
    if dtype not in (np.uint8, np.uint16) and dtype.kind != "f":
        what = f"holds {dtype}, of which nothing says which is black and which white"
        raise DataError(where, what, _WANTED)
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(where, f"has shape {shape}: no image", _WANTED)
    if held > MAX_BYTES:
        raise DataError(where, f"holds {held:,} bytes: more than {MAX_BYTES:,}", "cut it up")
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind == "f":
        array = from_float(where, array)
    elif array.dtype == np.uint16:
        saw_deep(int(array.max()))
        array = (array >> 8).astype(np.uint8)
    return array if array.ndim == 3 else array[:, :, None]


def channels_of(
    where: str, image: Image.Image, channels: int, page: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    """uint8 (H, W, channels) of an opened image: its pages, or the samples of its only one.

    page: gives uint8 (H, W) of a grey page. Raises DataError: it has other channels.
    """
    pages = getattr(image, "n_frames", 1)
    if pages == 1:
        try:
            return from_pillow(image, channels).reshape(image.size[1], image.size[0], channels)
        except DataError as e:
            what = f"is of mode {image.mode}, {len(image.getbands())} channels, not {channels}"
            raise DataError(where, what, _hint(channels)) from e
    if pages != channels:
        what = f"has {pages} pages, and {channels} channels are asked for"
        raise DataError(where, what, "a page a channel")
    found: list[np.ndarray] = []
    for index in range(pages):
        image.seek(index)
        if len(image.getbands()) > 1 or image.mode == "P":
            what = f"page {index + 1} is of mode {image.mode}, not grey"
            raise DataError(where, what, "a page a channel")
        found.append(page(image))
        if found[-1].shape != found[0].shape:
            raise DataError(where, f"page {index + 1} is not of the first one's size")
    return np.stack(found, axis=-1)


def _hint(channels: int) -> str:
    return f"a .npy array (H, W, {channels}) or a TIFF of {channels} grey pages holds them"
