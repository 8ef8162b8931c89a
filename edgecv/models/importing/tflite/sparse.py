"""Weights that are stored without their zeros (schema: SparsityParameters), made dense.

    dense axes:  every index is there
    sparse axes: for each position above, segments[p] .. segments[p + 1] of indices

Axes are stored in traversal order; the axes behind the tensor's own are blocks of one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer


def densified(model: Any, tensor: Any) -> np.ndarray:
    """The tensor's values, zeros written in."""
    shape = tuple(map(int, tensor.shape))
    told = tensor.sparsity
    order = [int(a) for a in told.traversalOrder]
    blocks = [int(b) for b in told.blockMap] if told.blockMap is not None else []
    places = _places(told.dimMetadata)  # (stored values, axes in traversal order)
    index = np.zeros((len(shape), len(places)), np.int64)
    sizes = dict(zip(order, (_size(d, places, k) for k, d in enumerate(told.dimMetadata)),
                     strict=True))  # fmt: skip
    for column, axis in enumerate(order):
        if axis < len(shape):
            block = len(shape) + blocks.index(axis) if axis in blocks else None
            index[axis] += places[:, column] * (sizes[block] if block is not None else 1)
        else:
            index[blocks[axis - len(shape)]] += places[:, column]
    half = tensor.type == flatbuffer.enum("TensorType", "FLOAT16")
    data = bytes(model.buffers[tensor.buffer].data)
    flat = np.frombuffer(data, np.float16 if half else np.float32)
    found = np.zeros(shape, flat.dtype)
    found[tuple(index)] = flat[: len(places)]
    return found


def _places(levels: Any) -> np.ndarray:
    """Indices along every axis, of each value in the order that they are stored."""
    places = np.zeros((1, 0), np.int64)
    for level in levels:
        if level.format == 0:  # dense
            size = int(level.denseSize)
            here = np.tile(np.arange(size), len(places))
            places = np.column_stack([np.repeat(places, size, axis=0), here])
            continue
        segments = np.asarray(level.arraySegments.values, np.int64)
        counts = np.diff(segments)
        here = np.asarray(level.arrayIndices.values, np.int64)
        places = np.column_stack([np.repeat(places, counts, axis=0), here[: int(counts.sum())]])
    return places


def _size(level: Any, places: np.ndarray, column: int) -> int:
    """How many positions the axis has; of a sparse one, as far as it is used."""
    if level.format == 0:
        return int(level.denseSize)
    return int(places[:, column].max(initial=-1)) + 1
