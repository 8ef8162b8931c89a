"""`npz:PATH`: arrays saved with numpy.savez.

Keys: `images` and `labels`, or `x` and `y` (one split a file), or `x_train y_train x_test y_test`
(both splits in it). Images are uint8 (N, H, W) or (N, H, W, C); labels are integers
(N,). An optional `classes` holds the names. Read with allow_pickle=False: an array of objects is
refused.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from edgecv.data.images import check_labels
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError

PAIRS = (("images", "labels"), ("x", "y"))
MAX_CLASSES = 100_000  # a label beyond it is a mistake, not a class
# What numpy and zipfile raise over damaged headers and members.
BROKEN = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, LookupError, NotImplementedError,
          RuntimeError, SyntaxError, struct.error, tokenize.TokenError)  # fmt: skip
# Photographs pack to a third: beyond this many bytes, what unpacks to 50 times as many is none.
SMALL, MOST_TIMES = 64 << 20, 50
KEYS_HINT = "keys are images/labels, x/y, or x_train/y_train/x_test/y_test"


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The arrays of `split`. Raises DataError for wrong keys, shapes, dtypes or labels."""
    where = f"npz:{argument}"
    arrays = read(where, Path(argument).expanduser())
    x, y = _pair(where, arrays, split)
    images, labels = arrays[x], arrays[y]
    _check_arrays(where, x, images, y, labels)
    classes = _classes(where, arrays, labels)
    check_labels(f"{where} {y}", labels, len(classes))
    labels = labels.astype(np.int64)

    def item(index: int) -> tuple[np.ndarray, int]:
        return images[index], int(labels[index])

    own = 1 if images.ndim == 3 else images.shape[3]
    return Items(len(images), item, classes, own)


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the file's bytes, and the split."""
    path = Path(argument).expanduser()
    if not path.is_file():
        raise DataError(f"npz:{argument}", "no such file", HERE)
    return hash_files([(split, path)])


def read(where: str, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, none of them of objects. Raises DataError."""
    if not path.is_file():
        raise DataError(where, "no such file", HERE)
    if not zipfile.is_zipfile(path):
        raise DataError(where, "not an .npz file, or a truncated one", "numpy.savez writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_member(where, archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except OSError as error:
        raise DataError(where, f"cannot be read: {error.strerror}", KEYS_HINT) from error
    except BROKEN as error:
        raise DataError(where, "is damaged, or no .npz file", "numpy.savez writes one") from error


def _check_member(where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raises DataError where an array is not what its file can hold; nothing of it is unpacked."""
    place = f"{where} {member.filename.removesuffix('.npy')}"
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
        if read is None:
            raise DataError(place, f"is an array of format {version}", "save it with numpy.savez")
        shape, _, dtype = read(file)
        held = member.file_size - file.tell()
    if dtype.hasobject:
        hint = "save numbers: np.asarray(labels, np.int64)"
        raise DataError(place, "holds Python objects, which are code and not loaded", hint)
    if math.prod(shape) * dtype.itemsize != held:
        what = f"says {dtype} {shape} and holds {held:,} bytes"
        raise DataError(place, what, "save it again")
    if held > SMALL and held > MOST_TIMES * member.compress_size:
        what = f"unpacks to {held:,} bytes from {member.compress_size:,}"
        raise DataError(place, what, "save it with numpy.savez, which packs nothing")


def _pair(where: str, arrays: dict[str, np.ndarray], split: str) -> tuple[str, str]:
    """The names of the images and the labels of `split`."""
    for pair in ((f"x_{split}", f"y_{split}"), *PAIRS):
        if all(key in arrays for key in pair):
            return pair
    raise DataError(where, f"holds {', '.join(arrays) or 'nothing'}", KEYS_HINT)


def _check_arrays(where: str, x: str, images: np.ndarray, y: str, labels: np.ndarray) -> None:
    if images.dtype != np.uint8:
        hint = "edgecv takes pixels 0..255 and normalises them itself"
        raise DataError(f"{where} {x}", f"must be uint8, not {images.dtype}", hint)
    channels = images.shape[3] if images.ndim == 4 else 1
    # as many channels as pixels: the channels lie elsewhere
    turned = channels not in (1, 3) and channels >= min(images.shape[1:3])
    if images.ndim not in (3, 4) or turned:
        hint = "(N, H, W) or (N, H, W, C), channels last"
        raise DataError(f"{where} {x}", f"has shape {images.shape}", hint)
    if images.size == 0:
        raise DataError(f"{where} {x}", "holds no images")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        seen = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{where} {y}", f"labels must be integers (N,), not {seen}")
    if len(labels) != len(images):
        raise DataError(f"{where} {y}", f"has {len(labels)} labels for {len(images)} images")


def _classes(where: str, arrays: dict[str, np.ndarray], labels: np.ndarray) -> tuple[str, ...]:
    """Names, else numbers up to the largest label of either split."""
    if "classes" in arrays:
        return tuple(str(name) for name in arrays["classes"].ravel())
    both = [arrays[key] for key in ("y_train", "y_test") if key in arrays] or [labels]
    largest = max(int(a.max()) for a in both if a.size and a.dtype.kind in "iu")
    if largest >= MAX_CLASSES:
        raise DataError(where, f"label {largest} is out of range", f"at most {MAX_CLASSES} classes")
    return tuple(str(number) for number in range(largest + 1))
