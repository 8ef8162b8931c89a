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

a reduction over axis 1 that keeps no axis, and what scales its channels before they are quantized
(the mean of a transformer's tokens, weighed): the fused kernel counts channels along the axis that
was reduced, 2 to 7 dB. One number for all channels is right.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.openvino.constants import value
from edgecv.graphs.openvino.layers import BETWEEN
from edgecv.graphs.openvino.nodes import above, kind, rank, readers, source, sources

EXTREMES = ("ReduceMax", "ReduceMin")
# What a kernel does to the numbers that it made, each by itself.
EACH = ("Multiply", "Add", "Subtract", "Divide", "Relu", "Clamp", "Sigmoid", "Tanh", "Convert")


def keep_apart(model: Any) -> int:
    """Rewrite an ov.Model in place; how many pairs are kept apart now."""
    every = model.get_ordered_ops()
    entries = [node.input(0) for node in every if _dense(node) and _behind_another(node)]
    entries += [
        reader
        for node in every
        if (kind(node) in EXTREMES and rank(node) != 0) or _misplaces(node)
        for reader in node.output(0).get_target_inputs()
        if kind(reader.get_node()) != "Result"
    ]
    return sum(map(_part, entries))


def _part(entry: Any) -> bool:
    """Shuffle what a node reads there, if that is not done yet."""
    from openvino import opset13 as ops

    read = entry.get_source_output()
    if kind(read.get_node()) == BETWEEN:
        return False
    # without a name: what OpenVINO makes up is made the same for every compilation (`compile`)
    made = ops.shuffle_channels(read, axis=0, group=1)
    entry.replace_source_output(made.output(0))
    return True


def _misplaces(node: Any) -> bool:
    """Whether channels of a reduction are scaled behind it that are not where they were."""
    if not kind(node).startswith("Reduce") or node.get_attributes().get("keep_dims", True):
        return False
    axes, of = value(source(node, 1))[0], rank(source(node))
    if axes is None or not of or 1 not in {int(axis) % of for axis in axes.reshape(-1)}:
        return False
    waiting = readers(node)
    while waiting:
        at = waiting.pop()
        others = [found for n in sources(at) if (found := value(n)[0]) is not None]
        if kind(at) in (*EACH, "FakeQuantize") and any(found.size > 1 for found in others):
            return True
        waiting += readers(at) if kind(at) in EACH else []
    return False


def _dense(node: Any) -> bool:
    """Whether a node is a dense layer of rank 2 with weights of its own."""
    return kind(node) == "MatMul" and rank(node) == 2 and _constant(source(node, 1))


def _constant(node: Any) -> bool:
    """Whether all that a node is made of is in the file."""
    return all(kind(at) != "Parameter" for at in above(node))


def _behind_another(node: Any) -> bool:
    """Whether nothing but operators on rank 2 stands between it and another one."""
    return any(map(_dense, above(source(node), of_rank=2)))
