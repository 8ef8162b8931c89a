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

from edgecv.graphs.onnx.draft import Draft

MOVES = ("Reshape", "Transpose", "Gather", "Squeeze", "Unsqueeze", "Slice")
LONGEST = 8
MOST = 1 << 22  # values of the image


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
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    source, end = row[0].input[0], row[-1].output[0]
    _, channels, high, wide = draft.shape(row[0], source)
    if draft.known_shape(end) is not None and draft.shape(row[-1], end)[2:] != (high, wide):
        return
    held = {n: draft.constant(n) for node in row for n in node.input[1:] if n}
    graph = helper.make_graph(
        row, "row",
        [helper.make_tensor_value_info(source, TensorProto.INT64, (1, channels, high, wide))],
        [helper.make_tensor_value_info(end, TensorProto.INT64, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=draft.model.opset_import, ir_version=8)
    places = np.arange(channels * high * wide).reshape(1, channels, high, wide)
    try:
        made: Any = ReferenceEvaluator(model).run(None, {source: places})
    except Exception:  # the reference's own: then it stays as it is
        return
    at = np.asarray(made[0])
    if at.ndim != 4 or at.shape[0] != 1 or at.shape[2:] != (high, wide):
        return
    taken = at[0, :, 0, 0] // (high * wide)
    steps = np.unique(np.diff(taken))
    if len(steps) != 1 or steps[0] < 1 or not np.array_equal(places[:, taken], at):
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
