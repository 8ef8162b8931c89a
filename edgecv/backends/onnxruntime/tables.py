"""Activations between integers → one look-up each: y = table_c[q], 256 numbers for every channel.

    Conv ─ Q_c ─ DQ_c ─ Sigmoid ─ Mul ─ Q ─ DQ      →      Conv' ─ Q ─ Lookup ─ DQ

ONNX Runtime has integer kernels for Sigmoid and for Mul, each with a scale of its own, and none for
the whole; of one number of 8 bits every function is a table. Q_c has a scale and a zero point for
every channel, the integer convolution one for all: its weights and its bias take them,

    q = round(x / s_c) + z_c        w' = w / s_c,  b' = b / s_c + z_c        q = round(x')

which leaves w's integers as they are. Tables hold what the file's own nodes give of the 256
numbers.

The operator lies in the file with what it means (a function of ONNX): where the kernels are not
registered, any ONNX Runtime computes the same by GatherElements. ONNX Runtime's integer
convolutions have their channels last: Lookup does, so that the transposes around it cancel out
with theirs.

Milliseconds of YOLOX-nano by what stands in for 104 look-ups (one thread of a Xeon with AVX-512
VNNI; fp32 12.6, activations in ONNX Runtime's integer pieces 13.8, the kernel 9.5): Gather at
256 c + x in int64 65, GatherElements by planes 19.1, at 256 c + x 22, by columns 24; the file's own
nodes in floats, planes 22.7, channels last 55 (a DequantizeLinear with grids on the last axis).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes
from edgecv.graphs.onnx.epilogues import epilogues, with_product
from edgecv.graphs.onnx.index import Index

DOMAIN, OP, OPSET = "edgecv", "Lookup", 18
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
LEVELS = 256


@dataclass(frozen=True)
class _Place:
    """conv ─ pack ─ unpack ─ nodes ─ again; the nodes, and nobody else, read what lies between.

    scale, zero: of pack, one or one a channel; unpacks: of the convolution's weights and bias
    """

    conv: Any
    pack: Any
    unpack: Any
    nodes: tuple[Any, ...]
    again: Any
    scale: np.ndarray
    zero: np.ndarray
    unpacks: tuple[Any, Any]


def looked_up(model: Any) -> int:
    """Rewrite a Q/DQ onnx.ModelProto in place; how many activations are looked up now."""
    from onnx import helper

    draft = Draft(model, "compile")
    places = _places(model, draft)
    if not places:
        return 0
    for place in places:
        _rewrite(draft, place, _tables(model, place))
    draft.drop_unread()
    model.functions.append(_meaning())
    if all(o.domain != DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = max(model.ir_version, 8)  # the first with functions
    return len(places)


def _places(model: Any, draft: Draft) -> list[_Place]:
    index = Index(model.graph)
    found = [_place(index, draft, with_product(index, e), e.input) for e in epilogues(model)]
    return [place for place in found if place is not None]


def _place(index: Index, draft: Draft, nodes: tuple[Any, ...], x: str) -> _Place | None:
    """The place whose nodes read the tensor x; None where they are not between integers."""
    found, tensor = [_only(index, nodes[-1].output[0])], x
    for op in ("DequantizeLinear", "QuantizeLinear", "Conv"):
        node = index.makers.get(tensor)
        if node is None or node.op_type != op or len(node.input) < 3:
            return None
        found.append(node)
        tensor = node.input[0]
    again, unpack, pack, conv = found
    own = {n.output[0] for n in nodes}
    inside = x not in index.ends and all(n.output[0] in own for n in index.readers[x])
    chain = _only(index, conv.output[0]) is pack and _only(index, pack.output[0]) is unpack
    if not (inside and chain) or again is None or again.op_type != "QuantizeLinear":
        return None
    weight, bias = (index.makers.get(n) for n in conv.input[1:3])
    if any(n is None or n.op_type != "DequantizeLinear" for n in (weight, bias)):
        return None
    values = [draft.constant(n) for n in (*pack.input[1:3], *again.input[1:3])]
    shape = draft.known_shape(conv.output[0])
    if len(values) < 4 or any(v is None for v in values) or shape is None or len(shape) != 4:
        return None
    scale, zero, after, last = (np.asarray(v) for v in values)
    axis = attributes(pack).get("axis", 1)
    whole = scale.size == 1 or (scale.size == shape[1] and axis == 1)
    if not whole or after.size > 1 or zero.dtype != np.uint8 or last.dtype != np.uint8:
        return None
    return _Place(conv, pack, unpack, nodes, again, scale, zero, (weight, bias))


def _only(index: Index, tensor: str) -> Any:
    """The one node that reads a tensor, once; None of the network's outputs."""
    readers = index.readers[tensor]
    return readers[0] if index.uses[tensor] == 1 and tensor not in index.ends else None


def _tables(model: Any, place: _Place) -> np.ndarray:
    """(1 or C, 256) uint8: what the file's nodes make of each number, by ONNX Runtime."""
    from onnx import TensorProto, helper

    from edgecv.backends.onnxruntime.tensors import runner

    nodes = [place.unpack, *place.nodes, place.again]
    read = {n for node in nodes for n in node.input} - {n.output[0] for n in nodes}
    held = [t for t in model.graph.initializer if t.name in read]
    widest = max([place.scale.size, *(t.dims[1] for t in held if len(t.dims) == 4)])
    numbers = np.broadcast_to(np.arange(LEVELS, dtype=np.uint8)[:, None], (widest, LEVELS, 1))
    source, end = place.pack.output[0], place.again.output[0]
    graph = helper.make_graph(
        nodes, "table",
        [helper.make_tensor_value_info(source, TensorProto.UINT8, (1, *numbers.shape))],
        [helper.make_tensor_value_info(end, TensorProto.UINT8, (1, *numbers.shape))],
        held,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    answered = runner(made, optimised=False)({source: numbers[None].copy()})[0]
    return np.asarray(answered).reshape(widest, LEVELS)


def _rewrite(draft: Draft, place: _Place, tables: np.ndarray) -> None:
    from onnx import TensorProto, helper

    x, y = place.conv.output[0], place.again.input[0]
    shape = draft.known_shape(x)
    assert shape is not None
    index = draft.unique(f"{x}/index")
    if place.scale.size > 1:
        _fold(draft, place)
    place.pack.output[0] = index
    last, looked = draft.unique(f"{x}/last"), draft.unique(f"{y}/last")
    held = draft.hold(f"{y}/tables", tables)
    draft.before(
        place.again,
        draft.make("Transpose", [index], last, perm=TO_LAST),
        helper.make_node(OP, [last, held], [looked], name=f"{y}/lookup", domain=DOMAIN),
        helper.make_node("Transpose", [looked], [y], name=f"{y}/first", perm=TO_FIRST),
    )
    for node in draft.nodes("DequantizeLinear"):
        if node.input[0] == place.again.output[0]:
            node.input[0] = y
    # ONNX Runtime infers no shape past an operator that it does not know.
    size = [shape[i] for i in TO_LAST]
    info = helper.make_tensor_value_info(looked, TensorProto.UINT8, size)
    draft.graph.value_info.append(info)
    for node in (place.unpack, *place.nodes, place.again):
        draft.remove(node)


def _fold(draft: Draft, place: _Place) -> None:
    """The convolution gives q itself, on a grid of scale 1."""
    x, (weight, bias) = place.conv.output[0], place.unpacks
    by = place.scale.astype(np.float64)
    for i, unpack in ((1, weight), (2, bias)):
        scale, q = draft.constant(unpack.input[1]), draft.constant(unpack.input[0])
        assert scale is not None
        assert q is not None
        made = np.broadcast_to(scale.astype(np.float64), by.shape) / by
        names = [unpack.input[0], draft.hold(f"{x}/scale{i}", made.astype(np.float32))]
        if i == 2:
            moved = q.astype(np.float64) + np.rint(place.zero / made)
            ends = np.iinfo(np.int32)
            moved = np.clip(moved, ends.min, ends.max).astype(np.int32)
            names[0] = draft.hold(f"{x}/bias", moved)
        kind = np.int32 if i == 2 else q.dtype
        names.append(draft.hold(f"{x}/zero{i}", np.zeros(by.shape, kind)))
        own = draft.unique(f"{x}/operand{i}")
        draft.before(place.conv, draft.make("DequantizeLinear", names, own, axis=0))
        place.conv.input[i] = own
        if not draft.uses(unpack.output[0]):
            draft.remove(unpack)
    place.pack.input[1] = draft.hold(f"{x}/one", np.float32(1))
    place.pack.input[2] = draft.hold(f"{x}/zero", np.uint8(0))


def _meaning() -> Any:
    """Lookup said in operators of ONNX: a table is a row, and so is what is looked up in it.

    With C tables of a (N, H, W, C) image a row is a channel; with one it is all of the image.
    """
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Shape", ["tables"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["rest", "count"], ["columns"], axis=0),
        helper.make_node("Reshape", ["x", "columns"], ["apart"]),
        helper.make_node("Transpose", ["apart"], ["rows"], perm=(1, 0)),
        helper.make_node("Cast", ["rows"], ["at"], to=TensorProto.INT32),
        helper.make_node("GatherElements", ["tables", "at"], ["found"], axis=1),
        helper.make_node("Transpose", ["found"], ["back"], perm=(1, 0)),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["back", "shape"], ["y"]),
    ]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, OP, ["x", "tables"], ["y"], nodes, opset)
