"""Channels that are picked by a Reshape, Transpose, Reshape, Gather in a row, as a Slice.

    Gather(Reshape(Transpose(Reshape(x))); k)  =  x[:, b : e : s]     where it picks every s-th

So exporters write the channel shuffle of ShuffleNetV2 that hands one half on (`x.view(...)
.permute(...)`, then `x[0]`, `x[1]`). Where an image lies channels last each of those is a copy of
it to channels first and back. The row is run by ONNX's own reference on the places of values, which
says what it picks; anything but every s-th channel of an image of the same height and width stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.canonical.carried import MOST, carried, places
from edgecv.graphs.onnx.draft import Draft

MOVES = ("Reshape", "Transpose", "Gather", "Squeeze", "Unsqueeze", "Slice")
LONGEST = 8


def picked(draft: Draft) -> None:
    for node in draft.nodes("Gather"):
        row = _row(draft, node)
        if len(row) > 2 and any(n.op_type == "Transpose" for n in row):
            _sliced(draft, row)


def _row(draft: Draft, node: Any) -> list[Any]:
    """The moves in a row that end in `node`, from an image on; [] where they begin at none."""
    found: list[Any] = []
    while node is not None and node.op_type in MOVES and len(found) < LONGEST:
        if any(n and draft.constant(n) is None for n in node.input[1:]):
            return []
        if draft.constant(node.input[0]) is not None:
            return []
        found.insert(0, node)
        node = draft.maker(node.input[0])
    if not found or (node is not None and node.op_type in MOVES):
        return []
    shape = draft.known_shape(found[0].input[0])
    if shape is None or len(shape) != 4 or shape[0] != 1 or np.prod(shape) > MOST:
        return []
    return found


def _sliced(draft: Draft, row: list[Any]) -> None:
    source, end = row[0].input[0], row[-1].output[0]
    shape = draft.shape(row[0], source)
    high, wide = shape[2:]
    if draft.known_shape(end) is not None and draft.shape(row[-1], end)[2:] != (high, wide):
        return
    at = carried(draft, row, source, end)
    if at is None or at.ndim != 4 or at.shape[0] != 1 or at.shape[2:] != (high, wide):
        return
    taken = at[0, :, 0, 0] // (high * wide)
    steps = np.unique(np.diff(taken))
    if len(steps) != 1 or steps[0] < 1 or not np.array_equal(places(shape)[:, taken], at):
        return
    first, step = int(taken[0]), int(steps[0])
    node = row[-1]
    node.op_type = "Slice"
    del node.input[:], node.attribute[:]
    bounds = {"begin": first, "end": int(taken[-1]) + 1, "axis": 1, "step": step}
    node.input.append(source)
    node.input.extend(draft.hold(f"{end}/{k}", np.array([v], np.int64)) for k, v in bounds.items())
    for other in reversed(row[:-1]):
        if not draft.uses(other.output[0]):
            draft.remove(other)
