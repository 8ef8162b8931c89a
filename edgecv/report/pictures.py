"""Small pictures as data URIs: test images as they are, Grad-CAM as a veil that lies over them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from edgecv.errors import missing
from edgecv.report.saliency import upsampled

PLAIN = 64  # pixels; a larger image is shown smaller, as JPEG: PNG photographs weigh ten times more
LARGEST = 128
LEVELS = 32
VEIL = (232, 72, 12)  # over grey and colour alike; what is under the strongest spot still shows
OPACITY = 0.78


def image(pixels: np.ndarray) -> str:
    """A data URI of uint8 (H, W, C): the first three channels as RGB, of two the first alone."""
    shown = pixels[..., 0] if pixels.shape[2] < 3 else np.ascontiguousarray(pixels[..., :3])
    picture = _pillow().fromarray(shown)
    if max(picture.size) <= PLAIN:
        return _uri(picture, "PNG", optimize=True)
    picture.thumbnail((LARGEST, LARGEST))
    return _uri(picture, "JPEG", quality=85)


def veil(small: Any, size: tuple[int, int]) -> str:
    """A data URI of a Grad-CAM map, strongest where it is most opaque; scaled to its own maximum.

    small: nested lists or an array (h, w), >= 0
    """
    largest = max(size)
    height, width = (max(1, round(min(1.0, PLAIN / largest) * n)) for n in size)
    full = upsampled(np.asarray(small, np.float32), (height, width))
    top = float(full.max())
    levels = np.rint(full / top * (LEVELS - 1)) if top > 0 else np.zeros_like(full)
    picture = _pillow().fromarray(levels.astype(np.uint8), "P")
    picture.putpalette(bytes(VEIL) * LEVELS)
    alphas = bytes(round(255 * OPACITY * i / (LEVELS - 1)) for i in range(LEVELS))
    return _uri(picture, "PNG", optimize=True, transparency=alphas)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise missing("pillow", "report", "edgecv report") from None
    return Image


def _uri(picture: Any, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}"
