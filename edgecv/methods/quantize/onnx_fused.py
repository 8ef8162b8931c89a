"""What an engine computes as one carries one scale, at its end; what ends a network carries none.

    Conv ─ Q ─ DQ ─┬─ Sigmoid ─ Q ─ DQ ─┐                Conv ─┬─ Sigmoid ─┐
                   └────────────────── Mul ─ Q ─ DQ   →        └───────── Mul ─ Q ─ DQ

Inside stand values that the engine never writes: scales there cost accuracy (what a SiLU reads is
far wider than what it gives) and keep the engine from computing the whole at once.

    Conv ─ Q ─ DQ ─ Concat ─ Q ─ DQ ─ Reshape ─ Q ─ DQ   →   Conv ─ Concat ─ Reshape

Behind a detector's last layers boxes in pixels lie beside probabilities: on one scale the latter
are three numbers. An engine whose layers write floats as fast as integers has that part in float.
Any other has it in float too where it joins several tensors, behind layers that write integers each
on a scale of its own, but for those that write boxes: what no sigmoid bounds is an answer itself,
and they are the smallest of all.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from edgecv.graphs.onnx.epilogues import epilogues, with_product
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import PRODUCTS

# What evens out the rounding of what it reads: an image's worth of integers costs it nothing.
BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax", "Tanh")
SMALL = 0.02
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")


def computed_whole(model: Any, kinds: Collection[str]) -> list[Any]:
    """The nodes of a float onnx.ModelProto's activations that the engine computes as one, each
    with a product by constants behind it (`onnx_even.py`).

    kinds: which it does (`Facts.fused`)
    """
    if not kinds:
        return []
    index = Index(model.graph)
    found = [with_product(index, one) for one in epilogues(model) if one.kind in kinds]
    return [node for nodes in found for node in nodes]


def tail(model: Any) -> list[Any]:
    """The nodes of a float onnx.ModelProto behind its last products; none where a mean is among
    them."""
    before: set[str] = set()
    for node in reversed(model.graph.node):  # in order: what a product is made of
        if node.op_type in PRODUCTS or before.intersection(node.output):
            before.update(node.input)
    found = [
        node for node in model.graph.node
        if node.op_type not in PRODUCTS and not before.intersection(node.output)
    ]  # fmt: skip
    return [] if any(node.op_type in MEANS for node in found) else found


def joins(nodes: Collection[Any]) -> bool:
    """Whether several tensors are put beside each other there."""
    return any(node.op_type == "Concat" and len(node.input) > 1 for node in nodes)


def unbounded(model: Any, nodes: Collection[Any]) -> list[Any]:
    """The products that those nodes, its tail, read and pass on as numbers of any size; none where
    they are more than SMALL of the network's MACs.

    model: onnx.ModelProto with inferred shapes and a name for each node
    """
    behind = names(nodes)
    reached = {output.name for output in model.graph.output}
    for node in reversed(model.graph.node):
        if node.name in behind and node.op_type not in BOUNDED and reached & {*node.output}:
            reached.update(node.input)
    work = _macs(model)
    found = [n for n in model.graph.node if n.output[0] in work and n.output[0] in reached]
    least = SMALL * sum(work.values())
    return found if sum(work[n.output[0]] for n in found) <= least else []


def _macs(model: Any) -> dict[str, int]:
    """Of each convolution and dense layer, by its output: a weight for each place it is put on."""
    sizes = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    return {
        n.output[0]: sizes[n.input[1]] * math.prod(shapes.get(n.output[0], ())[2:])
        for n in model.graph.node
        if n.op_type in PRODUCTS and n.input[1] in sizes
    }


def names(nodes: Collection[Any]) -> set[str]:
    """What the quantizer leaves out."""
    return {node.name for node in nodes}


def opened_up(quantized: Any, nodes: Collection[Any]) -> None:
    """Let those nodes of the float graph read what lies in front of a pair; in place. Pairs that
    nothing reads go, and those behind products that are the network's outputs.

    nodes: computed as one, or the tail
    """
    index = Index(quantized.graph)
    opened = set()
    for node in nodes:
        own: Any = index.makers[node.output[0]]
        for i, name in enumerate(own.input):
            pair = _pair(index, name)
            if pair is not None:
                own.input[i] = pair[0].input[0]
                opened.add(own.input[i])
    _drop_unread(quantized.graph, opened)


def free_products(quantized: Any) -> None:
    """Take out the pairs between a product and the network's output that it makes; in place."""
    graph = quantized.graph
    index = Index(graph)
    for name in sorted(index.ends):
        pair = _pair(index, name)
        maker = index.makers.get(pair[0].input[0]) if pair is not None else None
        if pair is None or maker is None or maker.op_type not in PRODUCTS:
            continue
        own = maker.output[0]
        if len(index.readers[own]) != 1 or len(index.readers[pair[0].output[0]]) != 1:
            continue
        for node in pair:
            graph.node.remove(node)
        maker.output[0] = name


def _pair(index: Index, name: str) -> tuple[Any, Any] | None:
    """(QuantizeLinear, DequantizeLinear) that give a tensor."""
    unpack = index.makers.get(name)
    if unpack is None or unpack.op_type != "DequantizeLinear":
        return None
    pack = index.makers.get(unpack.input[0])
    return None if pack is None or pack.op_type != "QuantizeLinear" else (pack, unpack)


def _drop_unread(graph: Any, sources: set[str]) -> None:
    """Pairs behind those tensors whose floats nothing reads."""
    index = Index(graph)
    for pack in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in sources]:
        unpacks = index.readers[pack.output[0]]
        if any(index.uses[u.output[0]] or u.output[0] in index.ends for u in unpacks):
            continue
        for node in (*unpacks, pack):
            graph.node.remove(node)
