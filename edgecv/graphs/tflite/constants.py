"""Constants of a .tflite as the real numbers that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer


def dequantized(model: Any, tensor: Any) -> np.ndarray | None:
    """scale * (q - zero point) in float32, by channel where there are several scales; floats as
    float32; None for an activation."""
    held, grid = flatbuffer.constant(model, tensor), tensor.quantization
    if held is None:
        return None
    if held.dtype.kind == "f" or grid is None or grid.scale is None:
        return np.asarray(held, np.float32)
    side = [1] * held.ndim
    if len(grid.scale) > 1:
        side[int(grid.quantizedDimension)] = -1
    scale, zero = (np.asarray(v, np.float32).reshape(side) for v in (grid.scale, grid.zeroPoint))
    return np.asarray((held.astype(np.float32) - zero) * scale, np.float32)
