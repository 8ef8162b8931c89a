"""Names in files. What a layer answers to: its own, its weight's, its node's or tensor's.

"stage1.0.conv1", "stage1.0.conv1.weight", and "/stage1/stage1.0/conv1/Conv" or "conv_2d_3".
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.runtime.layers import layer_of


def names_of(weights: Sequence[str], nodes: Sequence[str]) -> frozenset[str]:
    layer = layer_of(weights, nodes)
    return frozenset({*weights[:1], *nodes, *([layer] if layer else [])})


def unique(name: str, taken: set[str]) -> str:
    """The name, or it with the first number that is free ("conv_2"); taken from then on."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found
