"""Which layers stay float: names as `edgecv bench --profile` shows them, resolved to layers.

What a layer answers to is said in `graphs.names`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.errors import StageError
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import DENSE

NEAREST = 3


def resolve(layers: Mapping[str, frozenset[str]], wanted: Sequence[str]) -> set[str]:
    """The layers (keys) that those names mean. Raises StageError with the nearest names there are.

    Keys and layer names go first: a weight that two layers share means both of them.
    """
    chosen: set[str] = set()
    for name in wanted:
        found = {key for key, names in layers.items() if name in names}
        if not found:
            known = sorted({n for names in layers.values() for n in names})
            near = difflib.get_close_matches(name, known, NEAREST, 0.3) or known[:NEAREST]
            hint = f"nearest: {', '.join(near)}; `edgecv bench --profile` shows every layer"
            raise StageError("quantize.keep_float", f"no layer is called {name!r}", hint)
        chosen |= found
    return chosen


def hold_float(quantized: Any, kept: set[str]) -> None:
    """Edit a Q/DQ graph in place so that ONNX Runtime leaves the kept nodes in float.

    It quantizes by itself whatever stands between a DequantizeLinear and a QuantizeLinear: the
    float weights of a convolution (WeightBiasQuantization), sums and activations (the Q/DQ
    selectors). Behind the node goes a LeakyRelu of slope 1, which changes no value, which none of
    those patterns crosses, and which becomes part of the convolution's own kernel.
    """
    import onnx

    makers = Index(quantized.graph).makers
    quantizes = {n.input[0] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    nodes = list(quantized.graph.node)
    held = []
    for node in nodes:
        held.append(node)
        output = node.output[0] if node.output else ""
        if node.name not in kept or not _leads_to(nodes, output, quantizes):
            continue
        inner = f"{output}/float"
        assert inner not in makers
        node.output[0] = inner
        held.append(
            onnx.helper.make_node("LeakyRelu", [inner], [output], f"{node.name}/held", alpha=1.0)
        )
    del quantized.graph.node[:]
    quantized.graph.node.extend(held)


# What may stand behind a network's last product: of little work, and its levels are the answer's.
BEHIND = (
    "Softmax", "LogSoftmax", "Sigmoid", "Tanh", "GlobalAveragePool", "AveragePool", "ReduceMean",
    "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity",
)  # fmt: skip


def free_outputs(quantized: Any) -> None:
    """Edit a Q/DQ graph in place so that the network's outputs are not rounded, nor anything behind
    its last product.

    A dense layer adds up in 32 bits and is scaled to real numbers anyway: QGemm and OpenVINO's
    kernel write floats as fast as they write integers. Rounded to 256 levels, two classes become
    one value, and the answer is whichever comes first; so they do where a mean of a rounded map, or
    its softmax, is rounded once more.
    """
    graph = quantized.graph
    makers = Index(graph).makers
    for output in graph.output:
        name = output.name
        while node := makers.get(name):
            layer = _unrounded(graph, makers, node)
            if layer is None or layer.op_type not in BEHIND:
                break
            name = layer.input[0]
    read = {name for n in graph.node for name in n.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def _unrounded(graph: Any, makers: dict[str, Any], node: Any) -> Any:
    """The layer that makes what `node` gives, the pair behind it taken out where that may be; None
    where it stays rounded."""
    if node.op_type != "DequantizeLinear":
        return node
    pack = makers.get(node.input[0])
    layer = makers.get(pack.input[0]) if pack is not None else None
    if pack is None or layer is None or pack.op_type != "QuantizeLinear":
        return None
    readers = [n for n in graph.node if {pack.input[0], pack.output[0]} & set(n.input)]
    if layer.op_type not in (*DENSE, *BEHIND) or len(readers) != 2:
        return None
    layer.output[0] = node.output[0]
    makers[node.output[0]] = layer
    graph.node.remove(pack)
    graph.node.remove(node)
    return layer


def _leads_to(nodes: Sequence[Any], tensor: str, quantizes: set[str]) -> bool:
    """Whether the tensor is quantized, at once or behind ReLU and Clip."""
    while tensor not in quantizes:
        readers = [n for n in nodes if tensor in n.input]
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip"):
            return False
        tensor = readers[0].output[0]
    return True
