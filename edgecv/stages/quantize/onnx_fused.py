"""What an engine computes as one carries one scale, at its end.

    Conv ─ Q ─ DQ ─┬─ Sigmoid ─ Q ─ DQ ─┐                Conv ─┬─ Sigmoid ─┐
                   └────────────────── Mul ─ Q ─ DQ   →        └───────── Mul ─ Q ─ DQ

Inside stand values that the engine never writes: scales there cost accuracy (what a SiLU reads is
far wider than what it gives) and keep the engine from computing the whole at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from edgecv.graphs.onnx.epilogues import Epilogue, epilogues
from edgecv.graphs.onnx.index import Index


def computed_whole(model: Any, kinds: Collection[str]) -> list[Epilogue]:
    """The activations of a float onnx.ModelProto that the engine computes as one, each with a
    product by constants behind it (`onnx_even.py`).

    kinds: which it does (`Facts.fused`)
    """
    if not kinds:
        return []
    index = Index(model.graph)
    return [_with_product(index, found) for found in epilogues(model) if found.kind in kinds]


def _with_product(index: Index, found: Epilogue) -> Epilogue:
    readers = index.readers[found.output]
    if len(readers) != 1 or found.output in index.ends or readers[0].op_type != "Mul":
        return found
    others = [n for n in readers[0].input if n != found.output]
    if len(others) != 1 or others[0] not in index.held:
        return found
    return replace(found, nodes=(*found.nodes, readers[0]))


def names(found: Sequence[Epilogue]) -> set[str]:
    """Their nodes' names, which the quantizer leaves out."""
    return {node.name for one in found for node in one.nodes}


def opened_up(quantized: Any, found: Sequence[Epilogue]) -> None:
    """Let them read the float in front of its pair; in place. A pair that nothing reads goes."""
    index = Index(quantized.graph)
    for one in found:
        for node in one.nodes:
            own: Any = index.makers[node.output[0]]
            for i, name in enumerate(own.input):
                pair = _pair(index, name)
                if pair is not None and pair[0].input[0] == one.input:
                    own.input[i] = one.input
    _drop_unread(quantized.graph, {one.input for one in found})


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
