"""images:PATH and synthetic:N - images without labels, for calibration and golden inputs.

They carry no classes, so nothing measured on them is called accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data.decode import calibration_images, decode
from edgecv.data.source import Items, hash_files

# Ranges settle with a few hundred images; more would only be decoded.
MOST = 1024


def items(argument: str, split: str) -> Items:  # noqa: ARG001
    """Images below a folder, flat or nested (at most MOST, evenly spread); or made-up ones."""
    kind, _, rest = argument.partition(":")
    if kind == "synthetic":
        return Items(int(rest), lambda i: (smooth_noise(i), 0), (), 3)
    paths = _chosen(Path(rest))
    return Items(len(paths), lambda i: (decode(paths[i], 3), 0), (), 3, parallel=True)


def fingerprint(argument: str, split: str) -> str:  # noqa: ARG001
    """SHA-256 of the chosen files, or the word itself for made-up images."""
    kind, _, rest = argument.partition(":")
    if kind == "synthetic":
        return argument
    folder = Path(rest)
    return hash_files([(p.relative_to(folder).as_posix(), p) for p in _chosen(folder)])


def _chosen(folder: Path) -> list[Path]:
    paths = calibration_images(folder)
    keep = np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).astype(int))
    return [paths[i] for i in keep]


def smooth_noise(index: int) -> np.ndarray:
    """uint8 (256, 256, 3): colour noise at several scales, roughly as photographs have it."""
    rng = np.random.default_rng(index)
    image = np.zeros((256, 256, 3))
    for cells in (2, 8, 32, 128):
        coarse = rng.uniform(-1, 1, (cells, cells, 3)) / np.sqrt(cells)
        image += coarse.repeat(256 // cells, 0).repeat(256 // cells, 1)
    image = (image - image.min()) / max(1e-9, float(image.max() - image.min()))
    return (255 * image).astype(np.uint8)
