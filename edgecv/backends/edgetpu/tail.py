"""What the CPU computes behind the Edge TPU's part: floats, from a DEQUANTIZE to the outputs.

The compiler maps the operators up to the first one that it has not, and leaves the rest to LiteRT
on the CPU (https://coral.ai/docs/edgetpu/models-intro/, "Compiling"): decoding behind a detector's
last layers, which would have one scale for boxes and probabilities. No layer with weights is among
them, and nothing goes back to integers: that would be a part of the network that the Edge TPU
never sees.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.tflite import flatbuffer

FLOATS = ("FLOAT32", "FLOAT16")


def of(model: Any, products: frozenset[str]) -> list[Any]:
    """The operators of a ModelT that compute in float behind integers, in the file's order.

    products: the operators that have weights, which are never among them
    """
    graph, found, tail = flatbuffer.graph_of(model), [], set[int]()
    for op in graph.operators:
        kind = flatbuffer.op_name(model, op)
        reads = {int(t) for t in op.inputs if t >= 0 and _flows(model, graph.tensors[t])}
        real = {t for t in reads if flatbuffer.type_name(graph.tensors[t].type) in FLOATS}
        gives = [flatbuffer.type_name(graph.tensors[t].type) for t in op.outputs]
        if kind in products or any(name not in FLOATS for name in gives):
            continue
        unpacks = kind == "DEQUANTIZE" and bool(reads) and not real
        if unpacks or (real and real <= tail):
            tail |= {int(t) for t in op.outputs}
            found.append(op)
    return found


def note(model: Any, tail: list[Any]) -> str:
    """A sentence on them."""
    counts: dict[str, int] = {}
    for op in tail:
        kind = flatbuffer.op_name(model, op)
        counts[kind] = counts.get(kind, 0) + 1
    named = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    return f"behind the Edge TPU's part the CPU computes in float: {named}"


def _flows(model: Any, tensor: Any) -> bool:
    return flatbuffer.is_activation(model, tensor)
