"""Who makes and reads a tensor of a .tflite, its windows, and its integers as real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("ai_edge_litert")

from edgecv.backends.tflite.single_layer import twin
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.constants import dequantized
from edgecv.graphs.tflite.geometry import pads
from edgecv.graphs.tflite.index import Index
from edgecv.measuring.product import Product


@pytest.fixture
def model() -> Any:
    """int8: x ─ CONV_2D ─ y0 ─ CONV_2D (the same weights) ─ y1."""
    product = Product("x", "conv", (4, 4), (6, 6), (6, 6), (3, 3), pads=(1, 1, 1, 1))
    ((_, content),) = twin(product, True, chain=2)[0].items()
    return flatbuffer.parse(content, "twin")


def test_makers_and_readers(model: Any) -> None:
    graph = flatbuffer.graph_of(model)
    index, (first, last) = Index(graph), graph.operators
    weight, result = int(first.inputs[1]), int(first.outputs[0])
    assert index.makers == {result: first, int(graph.outputs[0]): last}
    assert index.readers[weight] == [first, last]
    assert index.readers[result] == [last]
    assert int(graph.outputs[0]) not in index.readers


def test_integers_are_the_real_numbers_they_stand_for(model: Any) -> None:
    graph = flatbuffer.graph_of(model)
    weight = graph.tensors[graph.operators[0].inputs[1]]
    grid, q = weight.quantization, flatbuffer.constant(model, weight)
    grid.scale, grid.zeroPoint = [0.5, 1.0, 2.0, 4.0], [0, 0, 0, 3]
    found = dequantized(model, weight)
    assert q is not None
    assert found is not None
    assert np.array_equal(found[1], q[1].astype(np.float32))
    assert np.array_equal(found[3], (q[3].astype(np.float32) - 3) * 4)
    grid.quantizedDimension = 3
    assert np.array_equal(dequantized(model, weight)[..., 2], q[..., 2] * np.float32(2))
    assert dequantized(model, graph.tensors[graph.inputs[0]]) is None


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"),
    [(7, 3, 2, 1), (8, 3, 2, 1), (8, 3, 1, 2), (5, 1, 3, 1), (6, 4, 1, 1)],
)
def test_same_padding_makes_as_many_places_as_tensorflow(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    same, valid = (flatbuffer.enum("Padding", name) for name in ("SAME", "VALID"))
    geometry = ((size, 5), (kernel, 1), (stride, 1), (dilation, 1))
    top, left, bottom, right = pads(*geometry, same)
    assert (left, right) == (0, 0)
    assert top <= bottom <= top + 1
    image = F.pad(torch.zeros(1, 1, size, 5), (left, right, top, bottom))
    rows = F.conv2d(image, torch.ones(1, 1, kernel, 1), None, (stride, 1), 0, (dilation, 1))
    assert rows.shape[2] == -(-size // stride)
    assert pads(*geometry, valid) == (0, 0, 0, 0)
