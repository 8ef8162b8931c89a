"""Outputs of .tflite files that hold several quantities side by side."""

from __future__ import annotations

import numpy as np

from edgecv.graphs import groups
from edgecv.graphs.groups import Groups
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.groups import found
from edgecv.runtime.spec import TensorSpec
from tests.models.importing.tflite_files import File, conv


def parted(f: File, *outputs: int) -> list[Groups | None]:
    return found(flatbuffer.parse(f.bytes(*outputs), "test"))


def join(f: File, parts: list[int], axis: int, *shape: int) -> int:
    return f.op("CONCATENATION", parts, shape, options="Concatenation", axis=axis)


def head(f: File, x: int, stride: int = 1) -> int:
    """Boxes, an object's score and those of three classes: (1, 8 / stride, 8 / stride, 8)."""
    side = 8 // stride
    parts = [conv(f, x, 4, stride=stride)]
    parts += [f.op("LOGISTIC", [conv(f, x, n, stride=stride)], (1, side, side, n)) for n in (1, 3)]
    return join(f, parts, -1, 1, side, side, 8)


def test_levels_are_looked_through_to_the_quantities_of_each() -> None:
    f = File()
    x = f.input(1, 8, 8, 3)
    levels = [
        f.op("RESHAPE", [head(f, x, s), f.hold([1, n, 8], "int32")], (1, n, 8))
        for s, n in ((1, 64), (2, 16))
    ]
    wide = join(f, levels, 1, 1, 80, 8)
    turned = f.op("TRANSPOSE", [wide, f.hold([0, 2, 1], "int32")], (1, 8, 80))
    ends = ((0, 4, 5, 8), (None, 1.0, 1.0))
    assert parted(f, wide, turned) == [Groups(2, *ends), Groups(1, *ends)]


def test_decoding_by_constants_in_floats_and_in_integers() -> None:
    f = File()
    x = f.input(1, 8, 8, 3)
    strides = f.op("DEQUANTIZE", [f.hold(np.ones((1, 1, 1, 8)), "float16")], (1, 1, 1, 8))
    scaled = f.op("MUL", [head(f, x), strides], (1, 8, 8, 8), options="Mul")
    grid = f.op("QUANTIZE", [scaled], (1, 8, 8, 8), kind="int8")
    both = f.op("MUL", [scaled, scaled], (1, 8, 8, 8), options="Mul")
    assert parted(f, grid, both) == [Groups(3, (0, 4, 5, 8), (None, None, None)), None]


def test_a_stack_counts_along_a_new_last_axis_alone() -> None:
    f = File()
    x = f.input(1, 8, 8, 3)
    flat = [f.op("RESHAPE", [t, f.hold([1, 64], "int32")], (1, 64))
            for t in (conv(f, x, 1), f.op("LOGISTIC", [conv(f, x, 1)], (1, 8, 8, 1)))]  # fmt: skip
    corners = f.op("PACK", flat, (1, 64, 2), options="Pack", axis=-1, valuesCount=2)
    steps = f.op("PACK", flat, (1, 2, 64), options="Pack", axis=1, valuesCount=2)
    assert parted(f, corners, steps) == [Groups(2, (0, 1, 2), (None, 1.0)), None]


def test_a_softmax_ends_what_is_split_along_the_last_axis() -> None:
    f = File()
    x = f.input(1, 8, 8, 3)
    shared = f.op("SOFTMAX", [head(f, x)], (1, 8, 8, 8), options="Softmax", beta=1.0)
    assert parted(f, shared, conv(f, x, 8)) == [None, None]


def test_axes_are_told_with_channels_first() -> None:
    held = Groups(3, (0, 4, 8), (None, 1.0))
    last, row = (
        groups.told([TensorSpec("y", "float32", shape, layout)], [held])[0]
        for shape, layout in (((1, 5, 6, 8), "NHWC"), ((1, 5, 6, 8), "NC"))
    )
    assert (last.groups, last.bounds) == ((1, 0, 4, 8), (0.0, 1.0))
    assert row.groups == (3, 0, 4, 8)
    assert groups.told([last], [None]) == (last,)
