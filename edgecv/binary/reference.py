"""What the kernels compute, in numpy: products one by one. Slow; every kernel is held against it.

dot[y, x, f] = Σ over taps inside the image, channels c of f's group:  a_c w_fc,   a, w ∈ {±1}, w 0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """A layer's sizes, as `xnor_shape` has them. pads: top, left, bottom, right."""

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the output; 0 where the kernel does not fit."""
        top, left, bottom, right = self.pads
        room = (self.height + top + bottom, self.width + left + right)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        sides = [
            max(0, r - s) // t + 1 if r >= s else 0
            for r, s, t in zip(room, spans, self.stride, strict=True)
        ]
        return sides[0], sides[1]


def packed(ones: np.ndarray) -> np.ndarray:
    """Booleans (..., channels), True for +1, as words: uint64 (..., ceil(channels / 64))."""
    channels = ones.shape[-1]
    whole = np.zeros((*ones.shape[:-1], -(-channels // 64) * 64), np.uint8)
    whole[..., :channels] = ones
    return np.packbits(whole, axis=-1, bitorder="little").view("<u8")


def unpacked(words: np.ndarray, channels: int) -> np.ndarray:
    """The booleans of `packed`."""
    data = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(data, axis=-1, bitorder="little")[..., :channels].astype(bool)


def dots(shape: Shape, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """int32 (out height, out width, filters).

    x: (height, width, channels) of ±1; weights: (filters, kernel h, kernel w, channels / groups) of
    ±1 and 0
    """
    (oh, ow), (top, left, bottom, right) = shape.out, shape.pads
    whole = np.zeros(
        (shape.height + top + bottom, shape.width + left + right, shape.channels), np.float64
    )
    whole[top : top + shape.height, left : left + shape.width] = x
    found = np.zeros((oh, ow, shape.filters))
    rows, columns = (shape.channels // shape.groups, shape.filters // shape.groups)
    for i in range(shape.kernel[0]):
        for j in range(shape.kernel[1]):
            y, z = i * shape.dilation[0], j * shape.dilation[1]
            seen = whole[
                y : y + (oh - 1) * shape.stride[0] + 1 : shape.stride[0],
                z : z + (ow - 1) * shape.stride[1] + 1 : shape.stride[1],
            ]
            for g in range(shape.groups):
                own = weights[g * columns : (g + 1) * columns, i, j].astype(np.float64)
                part = seen[..., g * rows : (g + 1) * rows]
                found[..., g * columns : (g + 1) * columns] += part @ own.T
    return found.astype(np.int32)
