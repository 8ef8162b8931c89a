"""Every k-th channel of integers: picked by the weights that read them, or by weights of their own.

    conv(x[:, b : e : k]; w)  =  conv(x; v)         v[:, b : e : k] = w, zeros elsewhere
    x[:, b : e : k]           =  conv(x; v)         v[i, b + i k] = 1, zeros elsewhere

Files halve channels so for ShuffleNetV2's shuffle, before a 1x1 convolution and for what is handed
on. ONNX Runtime has integers channels last, where a slice with a step is copied number by number,
and a Gather wants them first, between two transposes. FastestDet takes 0.74 of its time with
gathers, 0.69 with convolutions: the sums are the same, a 1x1 convolution of integers costs less for
zeros than any copy does, and gives what is handed on to a Concat on the Concat's grid.
(Rows of channels, and shuffles that files gather themselves, as edgecv's own ShuffleNetV2: nothing
is gained there.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.profile import ONES
from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes
from edgecv.graphs.onnx.index import Index

MOST = 512  # channels that a convolution picks: its products grow with their square


def unsliced(model: Any) -> int:
    """Rewrite such slices of a Q/DQ onnx.ModelProto in place; how many there were."""
    draft, count = Draft(model, "compile"), 0
    for node in draft.nodes("Slice"):
        index = Index(draft.graph)
        places, pairs = _places(draft, node), _pairs(draft, index, node)
        if places is None or pairs is None:
            continue
        if _widened(draft, index, pairs[1], node.input[0], places):
            for gone in (node, *pairs):
                draft.remove(gone)
        elif len(places) <= MOST:
            _convolved(draft, index, node, pairs, places)
        else:
            node.op_type = "Gather"
            node.input[1:] = [draft.hold(f"{node.output[0]}/places", places)]
            write_attributes(node, {"axis": 1})
        count += 1
    if count:
        draft.drop_unread()
    return count


def _places(draft: Draft, node: Any) -> np.ndarray | None:
    """Which channels of an image a Slice picks, int64; None where it picks others or a row."""
    held, shape = [draft.constant(n) for n in node.input[1:]], draft.known_shape(node.input[0])
    if len(held) != 4 or any(v is None or v.size != 1 for v in held):
        return None
    begin, end, axis, step = (int(v.ravel()[0]) for v in held if v is not None)
    if shape is None or len(shape) != 4 or axis not in (1, -3) or step == 1:
        return None
    return np.arange(shape[1], dtype=np.int64)[begin:end:step]


def _pairs(draft: Draft, index: Index, node: Any) -> tuple[Any, Any] | None:
    """The Q and the DQ behind a node that a DQ feeds: on one grid, and read by nobody else."""
    unpack, pack = index.makers.get(node.input[0]), only(index, node.output[0])
    again = only(index, pack.output[0]) if pack is not None else None
    if unpack is None or again is None or pack.op_type != "QuantizeLinear":
        return None
    if {unpack.op_type, again.op_type} != {"DequantizeLinear"}:
        return None
    grids = [[draft.constant(n) for n in held.input[1:]] for held in (unpack, pack, again)]
    if any(len(grid) != 2 for grid in grids):
        return None
    for values in zip(*grids, strict=True):
        known = {(v.dtype, v.item()) for v in values if v is not None and v.size == 1}
        if len(known) != 1 or any(v is None or v.size > 1 for v in values):
            return None
    return pack, again


def _convolved(
    draft: Draft, index: Index, node: Any, pairs: tuple[Any, Any], places: np.ndarray
) -> None:
    """The slice is a 1x1 convolution, whose Q and DQ take the grid of a Concat behind them."""
    shape = draft.known_shape(node.input[0])
    assert shape is not None
    ones = np.zeros((len(places), shape[1], 1, 1), np.int8)
    ones[np.arange(len(places)), places] = 1
    name = draft.unique(f"{node.output[0]}/weight")
    grid = [
        draft.hold(f"{name}/{kind}", value)
        for kind, value in (("ones", ones), ("scale", np.float32(1)), ("zero", np.int8(0)))
    ]
    draft.before(node, draft.make("DequantizeLinear", grid, name))
    node.op_type, node.name = "Conv", f"{node.output[0]}{ONES}"
    node.input[1:] = [name]
    write_attributes(node, {"kernel_shape": [1, 1]})
    join = only(index, pairs[1].output[0])
    pack = only(index, join.output[0]) if join is not None and join.op_type == "Concat" else None
    if pack is not None and pack.op_type == "QuantizeLinear":
        known = [draft.constant(n) for n in pack.input[1:]]
        if len(known) == 2 and all(v is not None and v.size == 1 for v in known):
            for one in pairs:
                one.input[1:] = pack.input[1:]


def only(index: Index, tensor: str) -> Any:
    """The one node that reads a tensor, once; None of the network's outputs."""
    readers = index.readers[tensor]
    return readers[0] if index.uses[tensor] == 1 and tensor not in index.ends else None


def _widened(draft: Draft, index: Index, again: Any, source: str, places: np.ndarray) -> bool:
    """Whether a 1x1 convolution alone reads what was picked; then it reads all of the source."""
    conv = only(index, again.output[0])
    if conv is None or conv.op_type != "Conv" or conv.input[0] != again.output[0]:
        return False
    unpack, shape = index.makers.get(conv.input[1]), draft.known_shape(source)
    if unpack is None or unpack.op_type != "DequantizeLinear" or shape is None:
        return False
    weight, zero = draft.constant(unpack.input[0]), draft.constant([*unpack.input, ""][2])
    by_filter = attributes(unpack).get("axis", 1) == 0 or draft.known_shape(unpack.input[1]) == ()
    if weight is None or weight.shape[1:] != (len(places), 1, 1) or not by_filter:
        return False
    if len(unpack.input) > 2 and (zero is None or np.any(zero)):
        return False
    wide = np.zeros((len(weight), shape[1], 1, 1), weight.dtype)
    wide[:, places] = weight
    name, own = draft.hold(f"{conv.output[0]}/weights", wide), draft.unique(f"{source}/weight")
    given = attributes(unpack)
    draft.before(conv, draft.make("DequantizeLinear", [name, *unpack.input[1:]], own, **given))
    conv.input[0], conv.input[1] = source, own
    if not draft.uses(unpack.output[0]):
        draft.remove(unpack)
    return True
