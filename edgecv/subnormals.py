"""0 < |x| < 2^-126: subnormal float32 numbers, found and set to zero.

Training leaves them (weight decay halves a dead weight for ever, batch norm divides by a large
deviation), and a processor that meets one multiplies some hundred times slower. As zero they are
off by less than 1.2e-38 each, which no output shows.

    scan({"conv.weight": w})    {"conv.weight": 12}
    flush(w)                    the same with zeros in their place

Of a graph file's weights: `edgecv.graphs.onnx.subnormals`, `edgecv.graphs.tflite.subnormals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

SMALLEST = float(np.finfo(np.float32).tiny)  # the smallest normal float32, 2^-126


def count(array: np.ndarray) -> int:
    """How many values are subnormal in the array's own float type; 0 for any other type."""
    if array.dtype.kind != "f":
        return 0
    return int(np.count_nonzero(_subnormal(array)))


def scan(arrays: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]) -> dict[str, int]:
    """{name: subnormal values}, names that have any; counts of one name are added up."""
    found: dict[str, int] = {}
    pairs = arrays.items() if isinstance(arrays, Mapping) else arrays
    for name, array in pairs:
        if number := count(array):
            found[name] = found.get(name, 0) + number
    return found


def flush(array: np.ndarray) -> np.ndarray:
    """The array with zero for every subnormal value; the array itself when it has none."""
    if not count(array):
        return array
    return np.where(_subnormal(array), array.dtype.type(0), array)


def _subnormal(array: np.ndarray) -> np.ndarray:
    """Where its values are subnormal: an exponent of zeros and a fraction that is not.

    By their bits: a thread that takes subnormals as zero (`flushing.py`) compares them as zero too.
    """
    kind = array.dtype.newbyteorder("=")
    integer = np.dtype(f"u{kind.itemsize}")
    fraction = np.array((1 << np.finfo(kind).nmant) - 1, integer)
    sign = np.array(1 << (8 * kind.itemsize - 1), integer)
    bits = np.ascontiguousarray(array, kind).view(integer) & ~sign
    return (bits > 0) & (bits <= fraction)
