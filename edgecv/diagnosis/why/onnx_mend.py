"""The same ONNX graph with one thing mended, to be measured beside the one that was shipped.

u8 for s8          q + 128, z + 128: the same real values, so the same answers
transpose pairs    p then p^-1 with only element-wise nodes between: both go
other transposes   a Reshape to the same shape: the work without the copying, not the same answers
packed weights     s (q - z), computed once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.graphs.onnx.constants import axis_of, dequantized
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import FORWARD

ELEMENTWISE = frozenset((
    "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Identity", "Cast",
    "QuantizeLinear", "DequantizeLinear", "Elu", "Softplus", "Abs", "Neg", "Sqrt", "Exp",
))  # fmt: skip


def copied(model: Any) -> Any:
    """A copy that may be changed."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def unsigned(model: Any) -> Any | None:
    """Every s8 activation grid as the same grid in u8; None when there is none."""
    from onnx import TensorProto, numpy_helper

    made = copied(model)
    held = {t.name: t for t in made.graph.initializer}
    signed = {
        node.input[2]
        for node in made.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2
        and node.input[2] in held and held[node.input[2]].data_type == TensorProto.INT8
    }  # fmt: skip
    if not signed:
        return None
    for name in signed:
        zero = numpy_helper.to_array(held[name]).astype(np.int16) + 128
        new = numpy_helper.from_array(zero.astype(np.uint8), f"{name}_u8")
        made.graph.initializer.append(new)
    for node in made.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        weight = node.op_type == "DequantizeLinear" and node.input[0] in held
        if node.input[2] in signed and not weight:
            node.input[2] = f"{node.input[2]}_u8"
    for value in made.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.UINT8
    return made


def without_transposes(model: Any, shapes: Mapping[str, Sequence[int]]) -> Any | None:
    """No transposition of an activation left; None when there was none, or a shape is unknown."""
    from onnx import helper, numpy_helper

    made = copied(model)
    held = {t.name for t in made.graph.initializer}
    ends = {o.name for o in made.graph.output}
    if not (found := [n for n in made.graph.node if _transposes(n, held)]):
        return None
    _cancel_pairs(made, found, shapes)
    for i, node in enumerate(list(made.graph.node)):
        if not _transposes(node, held):
            continue
        shape = shapes.get(node.output[0])
        if not shape or 0 in shape:
            return None
        if shapes.get(node.input[0]) == shape and node.output[0] not in ends:
            _bypass(made, node)
            continue
        name = f"edgecv_why_shape_{i}"
        made.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        new = helper.make_node("Reshape", [node.input[0], name], node.output, name=node.name)
        node.CopyFrom(new)
    return made


def _bypass(model: Any, node: Any) -> None:
    """Let the readers of a node's output read its input."""
    source, gone = node.input[0], node.output[0]
    model.graph.node.remove(node)
    for reader in model.graph.node:
        for i, name in enumerate(reader.input):
            if name == gone:
                reader.input[i] = source


def _transposes(node: Any, held: set[str]) -> bool:
    return node.op_type == "Transpose" and node.input[0] not in held


def _cancel_pairs(model: Any, found: list[Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Take out pairs that undo each other, with the shapes between them as they then are."""
    ends = {o.name for o in model.graph.output}
    for first in found:
        index = Index(model.graph)  # anew: pairs before it are out
        chain, node = [first], first
        while index.uses[node.output[0]] == 1 and node.output[0] not in ends:
            (node,) = index.readers[node.output[0]]
            chain.append(node)
            if node.op_type not in ELEMENTWISE:
                break
        last = chain[-1]
        if last is first or last.op_type != "Transpose" or last.output[0] in ends:
            continue
        if list(np.argsort(_order(first, shapes))) != _order(last, shapes):
            continue
        gone = {node.output[0] for node in chain[:-1]}
        kept = [v for v in model.graph.value_info if v.name not in gone]
        del model.graph.value_info[:]
        model.graph.value_info.extend(kept)
        chain[1].input[0] = first.input[0]
        if last.input[0] == first.output[0]:
            last.input[0] = first.input[0]
        _bypass(model, last)
        model.graph.node.remove(first)


def _order(node: Any, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    for attribute in node.attribute:
        if attribute.name == "perm":
            return list(attribute.ints)
    return list(range(len(shapes.get(node.output[0], ()))))[::-1]


def unpacked(model: Any) -> Any | None:
    """Constants that a DequantizeLinear unpacks for a layer with float inputs, as float weights.

    None when there are none.
    """
    from onnx import numpy_helper

    made = copied(model)
    held, makers = Index(made.graph).held, Index(made.graph).makers
    done = 0
    for node in list(made.graph.node):
        if node.op_type not in FORWARD:
            continue
        source, weight = makers.get(node.input[0]), makers.get(node.input[1])
        on_grid = source is not None and source.op_type == "DequantizeLinear"
        if on_grid or weight is None or weight.op_type != "DequantizeLinear":
            continue
        if weight.input[0] not in held or any(a.name == "block_size" for a in weight.attribute):
            continue
        q, scale, *zero = (numpy_helper.to_array(held[n]) for n in weight.input)
        values = dequantized(q, scale, zero[0] if zero else None, axis_of(weight))
        name = f"{weight.output[0]}_float"
        made.graph.initializer.append(numpy_helper.from_array(values, name))
        node.input[1] = name
        done += 1
    return made if done else None
