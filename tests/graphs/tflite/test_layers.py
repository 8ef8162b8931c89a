"""How a weight's axes lie in a .tflite file."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.graphs.tflite.layers import AXES, OPERANDS, as_in_file, output_axis, outputs_first

# (O, H, W, I), depthwise (1, H, W, O), dense (O, I): schema.fbs of TensorFlow Lite
SHAPES = {
    "CONV_2D": ((8, 3, 5, 4), (8, 4, 3, 5)),
    "DEPTHWISE_CONV_2D": ((1, 3, 5, 8), (8, 1, 3, 5)),
    "FULLY_CONNECTED": ((8, 4), (8, 4)),
    "TRANSPOSE_CONV": ((8, 3, 5, 4), (8, 4, 3, 5)),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_outputs_come_first_and_go_back(name: str) -> None:
    held, wanted = SHAPES[name]
    weight = np.random.default_rng(0).normal(size=held)
    found = outputs_first(name, weight)
    assert found.shape == wanted
    assert held[output_axis(name)] == wanted[0] == 8
    assert np.array_equal(as_in_file(name, found), weight)
    assert np.array_equal(found[3], np.moveaxis(weight, AXES[name], range(weight.ndim))[3])
