"""What every kind of source offers: items to decode, and a fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.files import open_regular
from edgecv.errors import DataError

SPLITS = ("train", "test")
HERE = "paths are looked up in the working folder, then beside the recipe"


@dataclass(frozen=True)
class Items:
    """One split of a source, decoded an item at a time.

    count:    number of items
    item:     index -> (uint8 image (H, W) or (H, W, C) of any size, what is true of it)
    classes:  names, or None where only the labels say how many there are
    channels: 1 or 3, or None where the first image says it
    parallel: whether `item` may be called from several threads
    arrays:   by an input's name, real values (count, ...) for what is no image
    blank:    there are arrays alone: what `item` gives stands for nothing
    notes:    once all are decoded: what a user should know of how they were read
    truth:    what is true of an image: "index" its class, int; "Boxes" its PictureBoxes; "Maps" the
              class of each pixel, uint8 (H, W); "Numbers" float64 (K,), `classes` being what the
              K are called (edgecv.data.annotations)
    ids:      the numbers that the set itself gives its classes, in their order; () where none
    """

    count: int
    item: Callable[[int], tuple[np.ndarray, Any]]
    classes: tuple[str, ...] | None
    channels: int | None
    parallel: bool = False
    notes: Callable[[], list[str]] = list
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    blank: bool = False
    truth: str = "index"
    ids: tuple[int, ...] = ()


def hash_files(named: list[tuple[str, Path]]) -> str:
    """SHA-256 (hex) over names, sizes and contents, in the order given.

    Raises DataError naming the file that cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in named:
        label = name.encode("utf-8", "surrogateescape")
        with open_regular(path) as file:
            digest.update(f"{len(label)} {os.fstat(file.fileno()).st_size} ".encode())
            digest.update(label)
            try:
                while block := file.read(1 << 20):
                    digest.update(block)
            except OSError as error:
                raise DataError(str(path), f"cannot be read: {error.strerror}") from error
    return digest.hexdigest()
