"""What may be given as an image, where its meaning is certain, as uint8 pixels.

    uint8 (H, W) or (H, W, C)         pixels of 0..255, as they are
    float (H, W) or (H, W, C)         0..1, and nothing beyond: p = rint(255 x)
    a Pillow image                    grey or colour, as its mode says; taken as it lies (Pillow's
                                      own exif_transpose turns it upright)
    a path                            read as calibration images are: upright, of the formats that
                                      `edgecv.data.decode` lists and no others; with Pillow

C is the network's channels; where that is 1 or 3, grey, colour and colour with alpha will do.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import DataError, MissingExtraError

_COLOURS = (1, 3, 4)  # channels of an image that becomes grey or RGB; the fourth is dropped


def as_pixels(image: Any, channels: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, C) of what was given for a network of so many channels.

    Raises DataError: no image, or one that may mean several things; MissingExtraError: a path,
    and Pillow is not installed.
    """
    if isinstance(image, str | os.PathLike):
        image = _read(Path(image), channels)
    elif not isinstance(image, np.ndarray) and hasattr(image, "getbands"):
        image = from_pillow(image, channels)
    check(image, channels)
    return image if image.dtype == np.uint8 else from_float("image", image)


def from_float(where: str, image: np.ndarray) -> np.ndarray:
    """uint8 pixels of floats in 0..1. Raises DataError: a value beyond, or NaN."""
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # this way round NaN is refused too
        what = f"floats reach from {low:.3g} to {high:.3g}, not within 0..1"
        raise DataError(where, what, "pass uint8 pixels, not normalised: the bundle does that")
    return np.rint(np.multiply(image, 255.0, dtype=np.float64)).astype(np.uint8)


def from_pillow(image: Any, channels: int) -> np.ndarray:
    """Pixels of a Pillow image. Raises DataError: its mode does not say what is black and white, or
    has not the channels."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        what = f"a Pillow image of mode {mode} does not say which number is white"
        raise DataError("image", what, "pass it in 8 bits: mode L or RGB")
    if channels in (1, 3):
        grey = channels == 1 or mode in ("L", "LA", "La", "1")
        return np.asarray(image.convert("L" if grey else "RGB"))
    if channels == 4 and (mode in ("PA", "La", "RGBa") or "transparency" in image.info):
        image = image.convert("RGBA")
    if len(image.getbands()) != channels or image.mode == "P":
        what = f"a Pillow image of mode {mode} has no {channels} channels"
        raise DataError("image", what, f"pass a uint8 array (H, W, {channels})")
    return np.asarray(image)


def check(image: object, channels: int) -> None:
    """Raises DataError unless it is an array, (H, W) or (H, W, C), of uint8 or floats."""
    wanted = f"pass a uint8 array of shape (H, W, {channels})"
    if channels in (1, 3):
        wanted = "pass a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if not isinstance(image, np.ndarray):
        what = f"{type(image).__name__} is not an array"
        raise DataError("image", what, "np.asarray(image.convert('RGB'))")
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        what = f"dtype {image.dtype} is not uint8"
        raise DataError("image", what, "pixels are 0..255 integers, or floats in 0..1")
    shape = image.shape
    last = shape[2] if len(shape) == 3 else 1
    fits = last in _COLOURS if channels in (1, 3) else last == channels
    if image.ndim not in (2, 3) or not fits:
        hint = wanted
        if image.ndim == 3 and shape[0] in (1, 3, channels):
            hint = "channels come last: image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            hint = "one image at a time"
        what = f"shape {shape} is not an image"
        if image.ndim in (2, 3) and channels not in (1, 3):
            what += f" of the network's {channels} channels"
        raise DataError("image", what, hint)
    if 0 in shape:
        raise DataError("image", f"shape {shape} is empty", wanted)


def _read(path: Path, channels: int) -> np.ndarray:
    from pkgutil import resolve_name

    try:
        # by a name that is not followed: no result of a stage hangs on this way to read files
        # (`edgecv.keys.closure`), and no device's kit carries what reads them
        decode = resolve_name("edgecv.data.decode:decode")
    except ModuleNotFoundError as e:
        what = f"an image file is read by {e.name}, which is not here"
        raise MissingExtraError(str(path), what, "pass a uint8 array (H, W, C)") from None
    pixels: np.ndarray = decode(path, channels)
    return pixels


__all__ = ["as_pixels", "check", "from_float", "from_pillow"]
