"""A float layer of an OpenVINO graph in int8, to be timed beside the float one.

    x ─ FakeQuantize (256 levels) ─ layer,   w ─ FakeQuantize (255 levels, per channel) ─ layer

Ranges are those of one input: they do not change the time of an integer kernel, so that this tells
milliseconds and not accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.graphs.openvino.layers import output_axes
from edgecv.graphs.openvino.nodes import kind, name, source

LEVELS, WEIGHT_LEVELS = 256, 255


def in_integers(model: Any, ops: Sequence[Any], feeds: Mapping[str, np.ndarray]) -> bool:
    """Put FakeQuantize nodes on those layers' inputs and weights, in place; False for no layers."""
    from openvino import opset13 as opset

    if not ops:
        return False
    for op, value in zip(ops, _inputs(model, ops, feeds), strict=True):
        low, high = (np.float32(v) for v in (min(0.0, value.min()), max(value.max(), 1e-6)))
        source = opset.fake_quantize(op.input_value(0), low, high, low, high, LEVELS)
        op.input(0).replace_source_output(source.output(0))
        weight = op.input_value(1)
        limit = _limits(op)
        packed = opset.fake_quantize(weight, -limit, limit, -limit, limit, WEIGHT_LEVELS)
        op.input(1).replace_source_output(packed.output(0))
    model.validate_nodes_and_infer_types()
    return True


def _inputs(model: Any, ops: Sequence[Any], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What each layer is fed for one input, by OpenVINO itself."""
    import openvino as ov

    probe = model.clone()
    held = {name(op): op for op in probe.get_ordered_ops()}
    ports = [held[name(op)].input_value(0) for op in ops]
    results = [ov.opset13.result(port) for port in ports]
    probe.add_results(results)
    compiled = ov.Core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = list(compiled(dict(feeds)).values())
    return [np.asarray(value) for value in outputs[-len(results) :]]


def _limits(op: Any) -> np.ndarray:
    """The largest magnitude of each output channel of the weight, where it is a plain constant."""
    node = source(op, 1)
    shape = list(op.input(1).get_shape())
    if kind(node) != "Constant":
        return np.ones([1] * len(shape), np.float32)
    values = np.abs(np.asarray(node.data))
    if kind(op) == "MatMul":
        return np.asarray(values.max(keepdims=True), np.float32)
    inputs = tuple(axis for axis in range(values.ndim) if axis not in output_axes(op))
    limit = values.max(axis=inputs, keepdims=True)
    return np.asarray(np.maximum(limit, 1e-12), np.float32)
