"""How OpenVINO's layers read and keep their weights, and what grid they are on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.graphs.openvino.constants import constant, dtype, value  # noqa: E402
from edgecv.graphs.openvino.layers import (  # noqa: E402
    layer_name,
    output_axes,
    outputs_first,
    quantized,
    reader_of,
)
from edgecv.graphs.openvino.nodes import above, kind, readers, source  # noqa: E402

RNG = np.random.default_rng(0)
PLAIN = {"strides": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}


def image(channels: int = 4) -> Any:
    return ops.parameter([1, channels, 6, 6], np.float32, name="x")


def node(shape: tuple[int, ...], transposed: bool = False) -> Any:
    """A layer with weights of that shape."""
    held = ops.constant(np.ones(shape, np.float32))
    if len(shape) == 2:
        given = ops.parameter([1, 4], np.float32)
        return ops.matmul(given, held, False, transposed)
    conv = ops.group_convolution if len(shape) == 5 else ops.convolution
    return conv(image(), held, **PLAIN)


@pytest.mark.parametrize(
    ("shape", "transposed", "found"),
    [
        ((8, 4, 3, 3), False, (8, 4, 3, 3)),
        ((4, 2, 1, 3, 3), False, (8, 1, 3, 3)),
        ((4, 8), False, (8, 4)),
        ((8, 4), True, (8, 4)),
    ],
)
def test_outputs_come_first(
    shape: tuple[int, ...], transposed: bool, found: tuple[int, ...]
) -> None:
    layer, weight = node(shape, transposed), RNG.normal(size=shape)
    got = outputs_first(layer, weight)
    assert got.shape == found
    axes = output_axes(layer)
    assert np.prod([shape[a] for a in axes]) == 8
    others = tuple(a for a in range(len(shape)) if a not in axes)
    assert np.allclose(got.reshape(8, -1).sum(1), weight.sum(axis=others).reshape(-1))


def test_a_weight_in_fewer_bits_is_the_numbers_it_stands_for() -> None:
    """w = (q - z) * s, reshaped: what converters write before a layer."""
    q = RNG.integers(0, 255, (8, 4, 1, 1)).astype(np.uint8)
    real = ops.convert(ops.constant(q, name="stem.weight"), "f32")
    real = ops.subtract(real, ops.constant(np.float32(7)))
    real = ops.multiply(real, ops.constant(np.float32(0.5)))
    layer = ops.convolution(image(), real, **PLAIN)
    found, held = value(source(layer, 1))
    assert (held, dtype(constant(layer, 1))) == ("u8", "uint8")
    assert np.array_equal(found, (q.astype(np.float32) - 7) * 0.5)
    assert value(source(layer)) == (None, "")
    assert layer_name(layer) == "stem"
    assert kind(reader_of(constant(layer, 1))) == "Convolution"


def test_what_only_moves_keeps_the_grid() -> None:
    x = image()
    low, high = (ops.constant(np.float32(v)) for v in (0, 1))
    grid = ops.fake_quantize(x, low, high, low, high, 256)
    moved = ops.reshape(grid, np.array([1, 16, 9], np.int64), False)
    moved = ops.transpose(moved, np.array([0, 2, 1], np.int64))
    assert quantized(moved)
    assert not quantized(ops.relu(moved))
    assert not quantized(x)
    assert layer_name(ops.relu(moved)) == ""


def test_walks_see_every_node_once() -> None:
    x = image()
    branch = ops.relu(x)
    last = ops.add(branch, ops.add(branch, branch))
    names = [n.get_name() for n in above(last)]
    assert len(names) == len(set(names)) == 4
    assert [kind(r) for r in readers(branch)].count("Add") == 3
