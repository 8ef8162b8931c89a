"""`arrays:PATH`: an .npz file with an array for each input of a network, a row a sample; or a
.npy file of images.

The image is the one array of bytes, uint8 (N, H, W) or (N, H, W, C), of any size; every other
array holds real values as the network takes them, (N, ...) without its batch axis. Of
`parted:PATH` the test split is every third sample, and no other split has it. Read with
allow_pickle=False.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.data import npz, plain
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError

SUFFIXES = (".npz", ".npy")
_PARTED = "parted:"


def items(argument: str, split: str, channels: int | None = None) -> Items:
    """The samples; both splits are all of them, unless the argument is parted:PATH. Raises
    DataError."""
    del channels
    where = argument.removeprefix(_PARTED)  # the prefix is edgecv's own word, and no part of a name
    path = Path(where).expanduser()
    arrays = _stack(where, path) if path.suffix == ".npy" else npz.read(where, path)
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
    if argument.startswith(_PARTED):
        kept = plain.part(counts.pop(), split)
        arrays = {name: values[kept] for name, values in arrays.items()}
        counts = {len(kept)}
    images = [n for n, v in arrays.items() if v.dtype == np.uint8 and v.ndim in (3, 4)]
    if len(images) > 1:
        what = f"holds {len(images)} arrays of bytes: {', '.join(images)}"
        raise DataError(where, what, "one is the image; give the others as floats")
    pixels = arrays.pop(images[0]) if images else None
    nothing = np.zeros((8, 8, 3), np.uint8)

    def item(index: int) -> tuple[np.ndarray, int]:
        return (nothing if pixels is None else pixels[index]), 0

    return Items(counts.pop(), item, (), None, arrays=arrays, blank=pixels is None)


def _stack(where: str, path: Path) -> dict[str, np.ndarray]:
    """The images of a .npy file."""
    if not path.is_file():
        raise DataError(where, "no such file", HERE)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, *npz.BROKEN) as error:
        raise DataError(where, "is damaged, or no .npy file", "numpy.save writes one") from error
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        what = f"holds {array.dtype} {array.shape}: no images, uint8 (N, H, W, C)"
        hint = "give what an input takes by its name: numpy.savez(path, NAME=array)"
        raise DataError(where, what, hint)
    return {"images": array}


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the file's bytes, and the split."""
    where = argument.removeprefix(_PARTED)
    path = Path(where).expanduser()
    if not path.is_file():
        raise DataError(where, "no such file", HERE)
    return hash_files([(split, path)])
