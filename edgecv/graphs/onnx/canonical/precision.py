"""Half and double networks in float32: weights, constants, casts, input and output.

A weight in float16 is a float32 weight exactly; one in float64 is rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft


def precision(draft: Draft) -> None:
    if other_floats(draft.graph):
        _in_float(draft.graph, _others())


def other_floats(graph: Any) -> bool:
    """Whether anything in the graph is in half, double or bfloat16."""
    return any(_kinds(graph, _others()))


def _others() -> tuple[int, ...]:
    import onnx

    proto = onnx.TensorProto
    return (proto.FLOAT16, proto.DOUBLE, proto.BFLOAT16)


def _kinds(graph: Any, others: tuple[int, ...]) -> Any:
    yield from (t.data_type in others for t in graph.initializer)
    yield from (v.type.tensor_type.elem_type in others for v in (*graph.input, *graph.output))
    for node in graph.node:
        for a in node.attribute:
            yield a.HasField("t") and a.t.data_type in others
            yield a.name in ("to", "dtype", "output_dtype") and a.i in others
            for sub in (*a.graphs, *((a.g,) if a.HasField("g") else ())):
                yield from _kinds(sub, others)


def _in_float(graph: Any, others: tuple[int, ...]) -> None:
    import onnx

    for tensor in graph.initializer:
        _tensor(tensor, others)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for node in graph.node:
        for a in node.attribute:
            if a.HasField("t"):
                _tensor(a.t, others)
            if a.name in ("to", "dtype", "output_dtype") and a.i in others:
                a.i = onnx.TensorProto.FLOAT
            for sub in (*a.graphs, *((a.g,) if a.HasField("g") else ())):
                _in_float(sub, others)


def _tensor(tensor: Any, others: tuple[int, ...]) -> None:
    from onnx import numpy_helper

    if tensor.data_type in others:
        values = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
