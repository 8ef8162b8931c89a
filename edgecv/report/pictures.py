"""Small pictures as data URIs: test images, Grad-CAM as a veil that lies over them, maps."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from edgecv.errors import missing
from edgecv.report.saliency import upsampled

PLAIN = 64  # pixels; a larger image is shown smaller, as JPEG: PNG photographs weigh ten times more
LARGEST = 128
SCENE = 320  # of a picture with boxes or a map: about 20 KB
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


def scene(pixels: np.ndarray) -> str:
    """A data URI of uint8 (H, W, C) in which boxes are to be seen, SCENE pixels wide or high."""
    shown = pixels[..., 0] if pixels.shape[2] < 3 else np.ascontiguousarray(pixels[..., :3])
    picture = _pillow().fromarray(shown)
    picture.thumbnail((SCENE, SCENE))
    return _uri(picture, "JPEG", quality=80)


def mask(classes: np.ndarray) -> str:
    """A data URI of a map, integers (H, W) in 0..255, each class in its colour
    (`edgecv.tasks.drawing.colour`), IGNORED clear; SCENE pixels wide or high at the most."""
    from edgecv.tasks.drawing import IGNORED, colour

    picture = _pillow().fromarray(_thinned(classes).astype(np.uint8), "P")
    picture.putpalette(bytes(v for index in range(256) for v in colour(index)))
    return _uri(picture, "PNG", optimize=True, transparency=IGNORED)


def differing(before: np.ndarray, after: np.ndarray) -> str:
    """A data URI of a veil over the pixels that two maps (H, W) of one image call otherwise."""
    picture = _pillow().fromarray((_thinned(before) != _thinned(after)).astype(np.uint8), "P")
    picture.putpalette(bytes(VEIL) * 2)
    return _uri(picture, "PNG", optimize=True, transparency=bytes((0, round(255 * OPACITY))))


def _thinned(classes: np.ndarray) -> np.ndarray:
    """Every so-manyth row and column: classes have no mean."""
    step = -(-max(classes.shape) // SCENE)
    return classes[::step, ::step]


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
