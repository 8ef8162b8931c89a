"""Where nodes that only move values take them from: run on the places of the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft

MOST = 1 << 22  # values of the image


def carried(draft: Draft, nodes: Sequence[Any], source: str, end: str) -> np.ndarray | None:
    """Of every value of `end` its place in `source`, int64, by ONNX's own reference.

    nodes: those between the two, in order; what else they read is constant
    None where a shape is not known, the image is large, or the reference cannot run them.
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    shape = draft.known_shape(source)
    if shape is None or np.prod(shape) > MOST:
        return None
    made = {source, *(name for node in nodes for name in node.output)}
    held = {n: draft.constant(n) for node in nodes for n in node.input if n and n not in made}
    graph = helper.make_graph(
        nodes, "moves",
        [helper.make_tensor_value_info(source, TensorProto.INT64, shape)],
        [helper.make_tensor_value_info(end, TensorProto.INT64, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=draft.model.opset_import, ir_version=8)
    try:
        found: Any = ReferenceEvaluator(model).run(None, {source: places(shape)})
    except Exception:  # the reference's own: then nothing is known
        return None
    return np.asarray(found[0])


def places(shape: Sequence[int]) -> np.ndarray:
    """int64, every value its own place."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
