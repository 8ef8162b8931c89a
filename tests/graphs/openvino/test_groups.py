"""Outputs of OpenVINO IR that hold several quantities side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.graphs.groups import Groups  # noqa: E402
from edgecv.graphs.openvino.groups import found  # noqa: E402

IMAGE = ops.parameter([1, 3, 8, 8], np.float32, name="x")
ENDS = (0, 4, 5, 8)


def conv(channels: int) -> Any:
    weight = ops.constant(np.ones((channels, 3, 1, 1), np.float32))
    return ops.convolution(IMAGE, weight, [1, 1], [0, 0], [0, 0], [1, 1])


def head() -> Any:
    """Boxes, an object's score and those of three classes."""
    return ops.concat([conv(4), ops.sigmoid(conv(1)), ops.sigmoid(conv(3))], 1)


def parted(*outputs: Any) -> list[Groups | None]:
    return found(ov.Model(list(outputs), [IMAGE]))


def test_levels_are_looked_through_to_the_quantities_of_each() -> None:
    levels = [ops.reshape(head(), np.array([1, 8, 64]), False) for _ in "ab"]
    rows = ops.transpose(ops.concat(levels, 2), np.array([0, 2, 1]))
    assert parted(head(), rows, conv(8)) == [
        Groups(1, ENDS, (None, 1.0, 1.0)), Groups(2, ENDS, (None, 1.0, 1.0)), None,
    ]  # fmt: skip


def test_decoding_by_constants_and_on_a_grid() -> None:
    size = np.ones((1, 8, 1, 1), np.float32)
    scaled = ops.relu(ops.multiply(head(), ops.constant(size)))
    grid = ops.fake_quantize(head(), *(np.float32(v) for v in (0, 1, 0, 1)), 256)
    both = ops.multiply(head(), conv(8))
    assert parted(scaled, grid, both) == [
        Groups(1, ENDS, (None, None, None)), Groups(1, ENDS, (None, 1.0, 1.0)), None,
    ]  # fmt: skip


def test_a_softmax_and_what_is_split_end_it() -> None:
    halves = ops.split(head(), 1, 2)
    joined = ops.concat([halves.output(1), conv(4)], 1)
    assert parted(ops.softmax(head(), 1), joined) == [None, Groups(1, (0, 4, 8), (None, None))]
