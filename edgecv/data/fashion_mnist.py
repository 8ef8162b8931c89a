"""`fashion-mnist` (60,000 + 10,000) and `fashion-mnist-sample` (12,000 + 3,000, in the checkout).

Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms": 28x28 grey pictures of clothes in ten classes. MIT licence, Zalando SE.

The full set is read from a local copy, plain or .gz: $EDGECV_DATA/fashion-mnist, the user's cache,
or Debian's package dataset-fashion-mnist. Where there is none it is downloaded into the cache.
Either way the SHA-256 of the uncompressed file must be the pinned one; archives differ between
mirrors (gzip headers hold a date), their contents do not.

The sample lies beside this file in a checkout and an sdist; a wheel leaves it out, and it is looked
for in $EDGECV_DATA/fashion-mnist-sample or the user's cache.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np

from edgecv.data import npz
from edgecv.data.source import Items, hash_files
from edgecv.errors import DataError, StoreError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SAMPLE = Path(__file__).parent / "fashion_mnist_sample"

# split -> ((images, bytes, SHA-256), (labels, bytes, SHA-256)), of the uncompressed files
FILES = {
    "train": (
        (
            "train-images-idx3-ubyte",
            47_040_016,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            "train-labels-idx1-ubyte",
            60_008,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
    ),
    "test": (
        (
            "t10k-images-idx3-ubyte",
            7_840_016,
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            "t10k-labels-idx1-ubyte",
            10_008,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}
# the second is plain HTTP, as its owners publish it: the checksum is what makes it safe
URLS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TIMEOUT_S = 30


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The images of "fashion-mnist" or "fashion-mnist-sample"; may download the former."""
    if argument == "fashion-mnist-sample":
        return npz.items(str(_sampled(split)), split)
    images, labels = (read_idx(content(*file), file[0]) for file in FILES[split])

    def item(index: int) -> tuple[np.ndarray, int]:
        return images[index], int(labels[index])

    return Items(len(images), item, CLASSES, channels=1)


def fingerprint(argument: str, split: str) -> str:
    """Of the sample: its bytes. Of the full set: the pinned checksums, so nothing is read."""
    if argument == "fashion-mnist-sample":
        return hash_files([(split, _sampled(split))])
    return hashlib.sha256("".join(file[2] for file in FILES[split]).encode()).hexdigest()


def _sampled(split: str) -> Path:
    """The sample's file. Raises DataError where this copy of edgecv came without it."""
    elsewhere = _cache().parent / "fashion-mnist-sample"
    for folder in (SAMPLE, elsewhere):
        if (folder / f"{split}.npz").is_file():
            return folder / f"{split}.npz"
    raise DataError(
        "fashion-mnist-sample",
        "its images are in edgecv's checkout and sdist, not in its wheel",
        f"copy edgecv/data/fashion_mnist_sample from there to {elsewhere}, or use fashion-mnist",
    )


def content(name: str, size_bytes: int, sha256: str) -> bytes:
    """The uncompressed idx file `name`, its checksum verified.

    Raises DataError where a local copy differs from the published file, or none can be had.
    """
    for folder in _folders():
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return _verified(str(path), path.read_bytes(), size_bytes, sha256)
    return _download(name, size_bytes, sha256)


def read_idx(data: bytes, where: str) -> np.ndarray:
    """An idx array of unsigned bytes (yann.lecun.com/exdb/mnist): 0 0 8 ndim, sizes, values.

    Raises DataError where the header or the length is wrong.
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 3:
        raise DataError(where, "not an idx file of unsigned bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(where, "truncated in its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise DataError(where, f"has {len(data)} bytes where its header says {expected}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _cache() -> Path:
    """Where downloads go: $EDGECV_DATA, else the user's cache folder."""
    root = os.environ.get("EDGECV_DATA")
    if root:
        return Path(root).expanduser() / "fashion-mnist"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "edgecv" / "fashion-mnist"


def _folders() -> tuple[Path, ...]:
    return (_cache(), DEBIAN)


def _verified(where: str, data: bytes, size_bytes: int, sha256: str) -> bytes:
    """`data`, unpacked if it is a gzip, once its checksum is right. Raises DataError."""
    if data[:2] == b"\x1f\x8b":
        try:
            unpacker = zlib.decompressobj(wbits=31)
            # never more than one byte too many: a bomb must not fill the memory
            data = unpacker.decompress(data, size_bytes + 1)
        except zlib.error as error:
            raise DataError(where, f"broken gzip: {error}", "remove it") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        what = f"SHA-256 is {found[:12]}... where the published file's is {sha256[:12]}..."
        raise DataError(where, what, "damaged or altered: remove it")
    return data


def _download(name: str, size_bytes: int, sha256: str) -> bytes:
    """Fetch `name` from the first address that has it, verified, and keep it in the cache."""
    import urllib.request

    failures = []
    for base in URLS:
        url = f"{base}{name}.gz"
        try:
            # S310: the addresses are the constants above
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                packed = answer.read(size_bytes + 65536)  # a .gz is never larger than that
            data = _verified(url, packed, size_bytes, sha256)
        except (OSError, DataError) as error:
            failures.append(str(error) if isinstance(error, DataError) else f"{url}: {error}")
            continue
        _keep(_cache() / f"{name}.gz", gzip.compress(data, mtime=0))
        return data
    hint = (
        f"put the four .gz files in {_cache()}, install Debian's dataset-fashion-mnist, "
        "or use fashion-mnist-sample"
    )
    raise DataError("fashion-mnist", f"{name}: {'; '.join(failures)}", hint)


def _keep(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise StoreError(str(path), f"cannot be written: {error.strerror}") from error
