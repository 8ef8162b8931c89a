"""Windows of a .tflite operator: TensorFlow's SAME padding as numbers.

total = max((ceil(n / s) - 1) s + (k - 1) d + 1 - n, 0), its smaller half in front
"""

from __future__ import annotations

from collections.abc import Iterable

from edgecv.graphs.tflite import flatbuffer


def is_same(padding: int) -> bool:
    """Whether an operator's `padding` is SAME; else it is VALID, which is none."""
    return int(padding) == flatbuffer.enum("Padding", "SAME")


def pads(
    sizes: Iterable[int],
    kernel: Iterable[int],
    strides: Iterable[int],
    dilations: Iterable[int],
    padding: int,
) -> tuple[int, ...]:
    """Top, left, bottom, right. All are (height, width)."""
    if not is_same(padding):
        return (0, 0, 0, 0)
    each = zip(map(int, sizes), kernel, strides, dilations, strict=True)
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in each]
    return (*(t // 2 for t in totals), *(t - t // 2 for t in totals))
