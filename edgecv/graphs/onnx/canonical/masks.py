"""Minus infinity in a constant becomes a number that says the same to what reads it.

    softmax(x + m), m = −∞ where masked:    e^(−10⁴ − max) is 0 in float32, as e^−∞ is
    MaxPool(Pad(x; −∞)):                    MaxPool with those pads, which a maximum never sees
    Where(IsNaN(s), 0, s), s = softmax:     s, which is never NaN without infinities

Attention masks and the padded max pools of networks from TensorFlow are written so. Engines compute
with infinities, but no scale of int8 holds one, and 0 · −∞ is NaN. A row that is masked whole is
NaN (or 0) before and a plain mean after, which whoever compares sees. Weights of products hold no
infinity: there it is damage, and stays to be refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, inner_reads, write_attributes

LOW = -1e4
# What hands values on or compares them; a product with −∞ means something else.
READERS = frozenset({
    "Add", "Cast", "Clip", "Concat", "ConstantOfShape", "Expand", "Gather", "Identity", "Max",
    "Min", "Pad", "Reshape", "ScatterElements", "ScatterND", "Slice", "Squeeze", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip


def masks(draft: Draft) -> None:
    for pad in draft.nodes("Pad"):
        _into_pools(draft, pad)
    for tensor, readers in _constants(draft):
        values = _values(tensor)
        if values is not None and all(op in READERS for op in readers):
            _write(tensor, np.where(np.isneginf(values), LOW, values).astype(values.dtype))

    for choice in draft.nodes("Where"):
        _unguarded(draft, choice)


def _unguarded(draft: Draft, choice: Any) -> None:
    """Where(IsNaN(s), c, s) = s for s = Softmax(x): without infinities it is never NaN."""
    asked, _, s = choice.input
    asks, makes = draft.maker(asked), draft.maker(s)
    if asks is None or asks.op_type != "IsNaN" or asks.input[0] != s:
        return
    if makes is None or makes.op_type != "Softmax":
        return
    if choice.output[0] in {o.name for o in draft.graph.output} | inner_reads(draft.graph):
        return
    for node in draft.graph.node:
        for i, name in enumerate(node.input):
            if name == choice.output[0]:
                node.input[i] = s
    draft.remove(choice)
    if not draft.uses(asked):
        draft.remove(asks)


def _constants(draft: Draft) -> list[tuple[Any, list[str]]]:
    """Every constant tensor with the operators that read it."""
    found = [(t, t.name) for t in draft.graph.initializer]
    for node in draft.nodes("Constant", "ConstantOfShape"):
        found += [(a.t, node.output[0]) for a in node.attribute if a.name == "value"]
    return [(tensor, [n.op_type for n in draft.graph.node if name in n.input])
            for tensor, name in found if _values(tensor) is not None]  # fmt: skip


def _values(tensor: Any) -> np.ndarray | None:
    """A float tensor's values where one is minus infinity."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        return None
    values = np.asarray(numpy_helper.to_array(tensor))
    return values if np.isneginf(values).any() else None


def _write(tensor: Any, values: np.ndarray) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _into_pools(draft: Draft, pad: Any) -> None:
    """Pad(x; −∞) goes into the max pools that read it, where they can take it."""
    sides = _sides(draft, pad)
    name = pad.output[0]
    readers = [n for n in draft.graph.node if name in n.input]
    if sides is None or not readers or draft.uses(name) != len(readers):
        return
    pads = []
    for pool in readers:
        given = attributes(pool)
        if pool.op_type != "MaxPool" or len(pool.output) > 1:
            return
        if given.get("auto_pad", "NOTSET") != "NOTSET":
            return
        own = given.get("pads") or [0] * len(sides)
        pads.append([a + b for a, b in zip(own, sides, strict=True)])
        if any(p >= k for p, k in zip(pads[-1], [*given["kernel_shape"]] * 2, strict=True)):
            return
    for pool, new in zip(readers, pads, strict=True):
        pool.input[0] = pad.input[0]
        write_attributes(pool, {"pads": new})
    draft.remove(pad)


def _sides(draft: Draft, pad: Any) -> list[int] | None:
    """Begins and ends of the spatial axes that are padded by -inf, or LOW; None: otherwise."""
    if attributes(pad).get("mode", "constant") != "constant" or len(pad.input) < 3:
        return None
    if len(pad.input) > 3 and pad.input[3]:
        return None
    pads, value = draft.constant(pad.input[1]), draft.constant(pad.input[2])
    if pads is None or value is None or not (value <= LOW).all() or pads.size < 6:
        return None
    both = pads.reshape(2, -1)
    return None if both[:, :2].any() or (both < 0).any() else [int(v) for v in both[:, 2:].ravel()]
