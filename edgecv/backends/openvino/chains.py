"""MatMul₁ → … → MatMul₂   becomes   MatMul₁ → … → ShuffleChannels of one group → MatMul₂   in int8.

OpenVINO 2026.4 makes one kernel of integer dense layers of rank 2 behind each other where the
processor has VNNI (snippets, TokenizeMLPSeqSnippets), and where one of them has no bias that
kernel's answers have nothing to do with the network's: 38 of 100 random chains, SQNR 0 dB and
less, the same files right with AVX2. Shuffling one group moves nothing, no such kernel holds it,
and the layers behind it stay integers. What does not do: a reshape (it is taken out again), a Clamp
or a PReLU of slope 1 (the layer behind it is computed in float), a Gather of everything (likewise
taken out).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BETWEEN = "ShuffleChannels"


def parted(model: Any) -> int:
    """Rewrite an ov.Model in place; how many dense layers have another before them."""
    from openvino import opset13 as ops

    held = [node for node in model.get_ordered_ops() if _dense(node) and _behind_another(node)]
    for node in held:
        name = f"{node.get_friendly_name()}/between"
        made = ops.shuffle_channels(node.input_value(0), axis=1, group=1, name=name)
        node.input(0).replace_source_output(made.output(0))
    return len(held)


def _dense(node: Any) -> bool:
    """Whether a node is a dense layer of rank 2 with weights of its own."""
    return (
        node.get_type_name() == "MatMul"
        and len(node.get_output_partial_shape(0)) == 2
        and _constant(node.input_value(1).get_node())
    )


def _constant(node: Any) -> bool:
    """Whether all that a node is made of is in the file."""
    return all(at.get_type_name() != "Parameter" for at in _above(node))


def _behind_another(node: Any) -> bool:
    """Whether nothing but operators on rank 2 stands between it and another one."""
    return any(map(_dense, _above(node.input_value(0).get_node(), rank=2)))


def _above(node: Any, rank: int | None = None) -> Iterator[Any]:
    """A node and what it is made of, as far as all of that has one rank (None: any)."""
    waiting, seen = [node], set[str]()
    while waiting:
        at = waiting.pop()
        if at.get_name() in seen:
            continue
        seen.add(at.get_name())
        if rank is None or len(at.get_output_partial_shape(0)) == rank:
            yield at
            waiting.extend(v.get_node() for v in at.input_values())
