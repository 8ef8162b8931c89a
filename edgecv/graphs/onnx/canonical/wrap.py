"""Pads that go round, said as slices and joins.

    Pad(x; b, e, wrap) along an axis of n = Concat(x[n - b:], x, x[:e])

one axis after another. OpenVINO and opset 18 have no such mode, and exporters write it all the same
(torch's circular padding). Source: onnx/docs/Operators.md, Pad.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes


def wrap(draft: Draft) -> None:
    for node in draft.nodes("Pad"):
        if attributes(node).get("mode") == "wrap":
            _joined(draft, node)


def _joined(draft: Draft, node: Any) -> None:
    shape = draft.shape(node, node.input[0])
    pads = draft.constant(node.input[1])
    if pads is None:
        draft.refuse(node, "its pads are computed", "export it with constant pads")
    both = np.asarray(pads).reshape(2, -1).T.tolist()  # of every axis: `axes` wrote them so
    todo = [(axis, b, e) for axis, (b, e) in enumerate(both) if b or e]
    out, at = node.output[0], node.input[0]
    made = []
    for place, (axis, b, e) in enumerate(todo):
        size = shape[axis]
        if not (0 <= b <= size and 0 <= e <= size):
            draft.refuse(node, f"goes round {b} and {e} values of {size}", "smaller pads")
        last = place == len(todo) - 1
        ends = [(size - b, size, b), (0, e, e)]
        parts = []
        for side, (first, stop, count) in zip(("begin", "end"), ends, strict=True):
            parts.append(draft.unique(f"{out}/{side}{axis}") if count else "")
            if count:
                held = [draft.hold(f"{out}/{side}{axis}/{what}", np.array([v], np.int64))
                        for what, v in (("from", first), ("to", stop), ("axis", axis))]  # fmt: skip
                made.append(draft.make("Slice", [at, *held], parts[-1]))
        joined = out if last else draft.unique(f"{out}/round{axis}")
        names = [name for name in (parts[0], at, parts[1]) if name]
        made.append(draft.make("Concat", names, joined, axis=axis))
        at = joined
    if not todo:
        made.append(draft.make("Identity", [at], out))
    draft.before(node, *made)
    draft.remove(node)
