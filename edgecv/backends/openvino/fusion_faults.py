"""a → b becomes a → ShuffleChannels of one group → b where OpenVINO's one kernel for both errs.

Shuffling one group moves nothing; no kernel fuses it, and the layers behind it stay integers. What
does not do: a reshape or a Gather of everything (they are taken out again), a Clamp or a PReLU of
slope 1 (the layer behind is computed in float). In int8 networks, OpenVINO 2026.4:

dense layers of rank 2 behind each other are one kernel where the processor has VNNI (snippets,
TokenizeMLPSeqSnippets). Where one of them has no bias its answers can be noise, 0 dB from those of
the same file with AVX2.

ReduceMax and ReduceMin of floats that are quantized behind: the fused kernel keeps them in the type
of those integers, whole numbers cut to it, before they are scaled. Of a whole tensor (rank 0) it
does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BETWEEN = "ShuffleChannels"
EXTREMES = ("ReduceMax", "ReduceMin")


def keep_apart(model: Any) -> int:
    """Rewrite an ov.Model in place; how many pairs are kept apart now."""
    every = model.get_ordered_ops()
    entries = [node.input(0) for node in every if _dense(node) and _behind_another(node)]
    entries += [
        reader
        for node in every
        if node.get_type_name() in EXTREMES and _rank(node) != 0
        for reader in node.output(0).get_target_inputs()
        if reader.get_node().get_type_name() != "Result"
    ]
    return sum(map(_part, entries))


def _part(entry: Any) -> bool:
    """Shuffle what a node reads there, if that is not done yet."""
    from openvino import opset13 as ops

    source = entry.get_source_output()
    if source.get_node().get_type_name() == BETWEEN:
        return False
    # without a name: what OpenVINO makes up is made the same for every compilation (`compile`)
    made = ops.shuffle_channels(source, axis=0, group=1)
    entry.replace_source_output(made.output(0))
    return True


def _rank(node: Any) -> int | None:
    rank = node.get_output_partial_shape(0).rank
    return rank.get_length() if rank.is_static else None


def _dense(node: Any) -> bool:
    """Whether a node is a dense layer of rank 2 with weights of its own."""
    return (
        node.get_type_name() == "MatMul"
        and _rank(node) == 2
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
        if rank is None or _rank(at) == rank:
            yield at
            waiting.extend(v.get_node() for v in at.input_values())
