"""images:PATH, parted:PATH and synthetic:N - images without labels, to calibrate and compare on.

Of parted:PATH every third image is the test split and no other split has it, so that what was
calibrated is judged on images that it has not seen.

They carry no classes, so nothing measured on them is called accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data.decode import Notes, decode
from edgecv.data.files import calibration_images
from edgecv.data.source import Items, hash_files

# Ranges settle with a few hundred images; more would only be decoded.
MOST = 1024
_JUDGED = 3  # of a parted folder, every so-manyth image is kept for the test split


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """Images below a folder, flat or nested (at most MOST, evenly spread); or made-up ones."""
    channels = 3 if channels in (None, 1) else channels
    kind, _, rest = argument.partition(":")
    if kind == "synthetic":
        return Items(int(rest), lambda i: (smooth_noise(i, channels), 0), (), channels)
    paths = _chosen(Path(rest), split if kind == "parted" else None)
    notes = Notes()

    def item(index: int) -> tuple[np.ndarray, int]:
        return decode(paths[index], channels, notes), 0

    return Items(len(paths), item, (), channels, parallel=True, notes=notes.sentences)


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 of the chosen files, or the word itself for made-up images."""
    kind, _, rest = argument.partition(":")
    if kind == "synthetic":
        return argument
    folder = Path(rest)
    chosen = _chosen(folder, split if kind == "parted" else None)
    return hash_files([(p.relative_to(folder).as_posix(), p) for p in chosen])


def _chosen(folder: Path, split: str | None) -> list[Path]:
    """split: whose share of a parted folder, None for all images."""
    paths = calibration_images(folder)
    if split is not None:
        paths = [paths[i] for i in part(len(paths), split)]
    keep = np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).astype(int))
    return [paths[i] for i in keep]


def part(count: int, split: str) -> list[int]:
    """Which of so many samples the split has: all of them where they are too few to part."""
    judged = range(_JUDGED // 2, count, _JUDGED)
    if count < _JUDGED:
        return list(range(count))
    return [i for i in range(count) if (i in judged) == (split == "test")]


def smooth_noise(index: int, channels: int = 3) -> np.ndarray:
    """uint8 (256, 256, channels): noise at several scales, roughly as photographs have it."""
    rng = np.random.default_rng(index)
    image = np.zeros((256, 256, channels))
    for cells in (2, 8, 32, 128):
        coarse = rng.uniform(-1, 1, (cells, cells, channels)) / np.sqrt(cells)
        image += coarse.repeat(256 // cells, 0).repeat(256 // cells, 1)
    image = (image - image.min()) / max(1e-9, float(image.max() - image.min()))
    return (255 * image).astype(np.uint8)
