"""Which part of an ONNX graph is the network: what its outputs are computed of, and nothing else.

A detector's decoding, a second head, an input that only these read: cut off by naming the tensors
or nodes at which the graph ends, or the outputs that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgecv.errors import ModelError
from edgecv.graphs.onnx.draft import body_reads
from edgecv.graphs.onnx.index import Index
from edgecv.yaml_validation import near


def cut(model: Any, until: Sequence[str], outputs: Sequence[str], where: str) -> None:
    """Leave of an onnx.ModelProto what its outputs need, in place.

    until:   tensors or nodes at which the graph ends: these are its outputs then, in this order
    outputs: the graph's outputs that stay, in this order; () without `until`: all
    where:   the user's file, as errors name it
    Raises ModelError: a name that nothing has, a tensor that is no result of a node.
    """
    graph = model.graph
    if until or outputs:
        known = {o.name: o for o in graph.output}
        for name in outputs:
            if name not in known:
                inner = any(name in n.output for n in graph.node)
                hint = f"--until {name} cuts the graph there" if inner else near(name, [*known])
                raise ModelError(where, f"has no output {name!r}", hint)
        ends = dict.fromkeys(
            (*outputs, *(t for name in until for t in _tensors(graph, name, where)))
        )
        made = [known.get(name) for name in ends]
        kinds = _kinds(model) if None in made else {}
        kept = [_value(name, one, kinds) for name, one in zip(ends, made, strict=True)]
        del graph.output[:]
        graph.output.extend(kept)
    _drop_dead(graph)
    drop_unread_inputs(graph)


def _tensors(graph: Any, name: str, where: str) -> Iterator[str]:
    """What a tensor's or a node's name stands for: one tensor, or all that the node gives."""
    if any(name in node.output for node in graph.node):
        yield name
        return
    nodes = [node for node in graph.node if node.name == name]
    if len(nodes) == 1:
        read = {n for node in graph.node for n in (*node.input, *body_reads(node))}
        read |= {o.name for o in graph.output}
        given = [n for n in nodes[0].output if n]
        yield from [n for n in given if n in read] or given
        return
    if nodes:
        several = ", ".join(repr(node.output[0]) for node in nodes)
        raise ModelError(where, f"has {len(nodes)} nodes named {name!r}",
                         f"cut at one of their tensors: {several}")  # fmt: skip
    if name in {v.name for v in (*graph.input, *graph.initializer)}:
        raise ModelError(where, f"{name!r} goes in: nothing is computed up to there",
                         "cut at a tensor that a node makes")  # fmt: skip
    every = [n for node in graph.node for n in (*node.output, node.name) if n]
    hint = near(name, every) if len(every) <= 20 else _nearest(name, every)
    raise ModelError(where, f"has no tensor or node named {name!r}", hint)


def _nearest(name: str, every: list[str]) -> str:
    """The nearest of many names; none of a thousand is worth a list."""
    found = near(name, every)
    return found if found.startswith("did") else f"its last ones: {', '.join(every[-4:])}"


def _kinds(model: Any) -> dict[str, int]:
    """The element type of every tensor that onnx can tell."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # more than 2 GB, or an operator that inference stumbles over
        graph = model.graph
    return {v.name: v.type.tensor_type.elem_type for v in graph.value_info}


def _value(name: str, known: Any, kinds: dict[str, int]) -> Any:
    """The graph output of that name. What onnx cannot tell is taken for floats, and whoever runs
    it refuses it where that is wrong."""
    import onnx

    if known is not None:
        made = onnx.ValueInfoProto()
        made.CopyFrom(known)
        return made
    kind = kinds.get(name) or onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_value_info(name, kind, None)


def _drop_dead(graph: Any) -> None:
    """Remove nodes that no output needs, and the weights that only they read."""
    needed = {o.name for o in graph.output}
    makers = Index(graph).makers
    todo, alive = list(needed), set()
    while todo:
        node = makers.get(todo.pop())
        if node is None or id(node) in alive:
            continue
        alive.add(id(node))
        reads = {*node.input} | body_reads(node)
        todo += reads - needed
        needed |= reads
    dead = [i for i, node in enumerate(graph.node) if id(node) not in alive]
    for i in reversed(dead):
        del graph.node[i]
    for held in (graph.initializer, graph.value_info) if dead else ():
        for i in reversed([i for i, v in enumerate(held) if v.name not in needed]):
            del held[i]


def drop_unread_inputs(graph: Any) -> None:
    """One input stays, read or not: then it is the image that is not read."""
    weights = {t.name for t in graph.initializer}
    read = {o.name for o in graph.output}
    read |= {n for node in graph.node for n in (*node.input, *body_reads(node))}
    inputs = [i for i in graph.input if i.name not in weights]
    kept = [i for i in inputs if i.name in read]
    if len(inputs) > 1 and kept:
        dropped = {i.name for i in inputs} - {i.name for i in kept}
        for at in reversed([k for k, i in enumerate(graph.input) if i.name in dropped]):
            del graph.input[at]
