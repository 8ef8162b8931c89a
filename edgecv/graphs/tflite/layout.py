"""Operators that do nothing but move a .tflite's image between channels last and first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecv.graphs.tflite import flatbuffer

# NHWC -> NCHW and back. Other permutations (attention heads, channel shuffle) are the network's.
_ORDERS = ((0, 3, 1, 2), (0, 2, 3, 1))


def layout_transposes(model: Any, besides: Sequence[Any] = ()) -> list[str]:
    """What reads each of them, in the file's order: ["RESHAPE", "the output"].

    besides: operators that do not count
    """
    graph, found = flatbuffer.graph_of(model), []
    for op in graph.operators:
        if flatbuffer.op_name(model, op) != "TRANSPOSE" or any(op is one for one in besides):
            continue
        order = flatbuffer.constant(model, graph.tensors[op.inputs[1]])
        if order is None or tuple(order.tolist()) in _ORDERS:
            readers = [o for o in graph.operators if op.outputs[0] in list(o.inputs)]
            found.append(flatbuffer.op_name(model, readers[0]) if readers else "the output")
    return found


def said(model: Any, cause: str = "", besides: Sequence[Any] = ()) -> str:
    """A sentence on them, "" where there is none. cause: the line of the network that asks."""
    found = layout_transposes(model, besides)
    if not found:
        return ""
    by = f"by {cause}" if cause else f"before {found[0]}"
    count = "a TRANSPOSE is" if len(found) == 1 else f"{len(found)} TRANSPOSEs are"
    return f"{count} left {by}"
