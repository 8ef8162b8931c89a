"""Plain .npy arrays of unknown origin, without NumPy's own reader, which evaluates the header.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import re
from io import BytesIO
from math import prod

import numpy as np

# What `written` makes of numbers and truth values.
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiub][1248])', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,12}, ?)*(?:[0-9]{1,12})?)\), \} *\n"
)


def written(array: np.ndarray) -> bytes:
    """The bytes of an .npy file of version 1.0, in C order."""
    buffer = BytesIO()
    array = np.asarray(array, order="C")
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read(data: bytes) -> np.ndarray:
    """A plain array in C order, no larger than the bytes. Raises ValueError."""
    size = int.from_bytes(data[8:10], "little")
    header = _HEADER.fullmatch(data[10 : 10 + size])
    if data[:8] != b"\x93NUMPY\x01\x00" or header is None:
        raise ValueError("no plain .npy array")
    shape = tuple(int(n) for n in header[2].split(b",") if n.strip())
    dtype = np.dtype(header[1].decode())
    if prod(shape) * dtype.itemsize != len(data) - 10 - size or len(shape) > 16:
        raise ValueError("an array of another size")
    return np.frombuffer(data, dtype, offset=10 + size).reshape(shape)
