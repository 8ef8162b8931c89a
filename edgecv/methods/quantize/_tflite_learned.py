"""Scales that `qat` learned, in a quantized .tflite (`learned.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import is_float, layers, output_axis, own
from edgecv.methods.quantize.learned import scales_of
from edgecv.target import Grid


def put_tflite(
    graph: Graph, model: Any, float_model: Any, grid: Grid
) -> Mapping[str, Sequence[float]]:
    """Give the quantized model's layers, in place, their learned scales and integers; the scales
    by the name of the weight. Layers that stayed float are left alone."""
    scales = scales_of(graph, grid)
    for (name, op), (_, twin) in zip(layers(model), layers(float_model), strict=True):
        source = flatbuffer.graph_of(float_model).tensors[twin.inputs[1]]
        if source.name.decode() not in scales or is_float(model, op):
            continue
        real = flatbuffer.constant(float_model, source)
        assert real is not None
        tensor = own(model, op, 1)
        axis = output_axis(name)
        count = len(tensor.quantization.scale)
        scale = np.array(scales[source.name.decode()], np.float32)
        scale = np.broadcast_to(scale, count)
        spread = scale.reshape([-1 if i == axis else 1 for i in range(real.ndim)])
        tensor.quantization.scale = scale.tolist()
        flatbuffer.set_constant(model, tensor, np.rint(real / spread).astype(np.int8))
    return scales
