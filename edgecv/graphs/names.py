"""What a layer answers to: its own name, its weight's, and its node's or tensor's in the file.

"stage1.0.conv1", "stage1.0.conv1.weight", and "/stage1/stage1.0/conv1/Conv" or "conv_2d_3".
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.runtime.layers import layer_of


def names_of(weights: Sequence[str], nodes: Sequence[str]) -> frozenset[str]:
    layer = layer_of(weights, nodes)
    return frozenset({*weights[:1], *nodes, *([layer] if layer else [])})
