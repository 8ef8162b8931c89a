"""`arrays:PATH`: an .npz file with an array for each input of a network, a row a sample.

The image is the one array of bytes, uint8 (N, H, W) or (N, H, W, C), of any size; every other
array holds real values as the network takes them, (N, ...) without its batch axis. Read with
allow_pickle=False.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data import npz
from edgecv.data.source import Items, hash_files
from edgecv.errors import DataError


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """The samples; both splits are all of them. Raises DataError."""
    del split, channels
    where = f"arrays:{argument}"
    arrays = npz.read(where, Path(argument).expanduser())
    if not arrays:
        raise DataError(where, "holds no arrays", "an array for each input, a row a sample")
    for name, values in arrays.items():
        if values.ndim == 0 or not len(values) or values.dtype.kind not in "fiub":
            what = f"{values.dtype} {values.shape} is no row of numbers for each sample"
            raise DataError(f"{where} {name}", what)
    counts = {len(values) for values in arrays.values()}
    if len(counts) > 1:
        held = ", ".join(f"{n} {len(v)}" for n, v in arrays.items())
        raise DataError(where, f"holds different numbers of samples: {held}", "a row a sample")
    images = [n for n, v in arrays.items() if v.dtype == np.uint8 and v.ndim in (3, 4)]
    if len(images) > 1:
        what = f"holds {len(images)} arrays of bytes: {', '.join(images)}"
        raise DataError(where, what, "one is the image; give the others as floats")
    pixels = arrays.pop(images[0]) if images else None
    blank = np.zeros((8, 8, 3), np.uint8)  # nobody looks at it

    def item(index: int) -> tuple[np.ndarray, int]:
        return (blank if pixels is None else pixels[index]), 0

    return Items(counts.pop(), item, (), None, arrays=arrays)


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the file's bytes."""
    path = Path(argument).expanduser()
    if not path.is_file():
        raise DataError(f"arrays:{argument}", "no such file")
    return hash_files([(split, path)])
