"""Constants of an ov.Model, and what is made of them alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.openvino.nodes import kind, source, sources

HALVES, BYTES = ("f16", "bf16"), ("i8", "u8")
FLOATS = ("f32", *HALVES)
_NUMBERS = (*FLOATS, *BYTES, "f64", "i32", "i64")
# Nodes between a constant and the layer that it is a weight of.
_UNPACKING = frozenset(("Convert", "Multiply", "Reshape", "Subtract", "Transpose", "FakeQuantize"))
_FAR = 8  # of them
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i4": "int4",
           "u4": "uint4"}  # fmt: skip


def dtype(node: Any) -> str:
    """What a node's numbers are kept in, as numpy calls it: "float32", "uint8", "int4"."""
    held = element(node)
    return _DTYPES.get(held, held)


def element(node: Any) -> str:
    """What a node's numbers are kept in: "f32", "u8", "i4"."""
    return str(node.get_element_type().get_type_name())


def unpacks(node: Any) -> bool:
    """Whether a node may stand between a weight and its layer."""
    return kind(node) in _UNPACKING


def constant(node: Any, place: int) -> Any:
    """The Constant node behind an input, through what unpacks it; None for an activation."""
    at = source(node, place)
    for _ in range(_FAR):
        if kind(at) == "Constant":
            return at
        if not unpacks(at):
            return None
        at = source(at)
    return None


def value(node: Any) -> tuple[np.ndarray | None, str]:
    """What a node gives that is made of constants alone, in float32, and the type that its numbers
    are kept in; None for any other node."""
    if kind(node) == "Constant":
        held = element(node)
        return (node.get_data(dtype=np.float32) if held in _NUMBERS else None), held
    if kind(node) not in ("Convert", "Subtract", "Multiply", "Reshape"):
        return None, ""
    (first, held), *others = map(value, sources(node))
    if first is None or any(v is None for v, _ in others):
        return None, ""
    if kind(node) == "Convert":
        return first, held
    second: Any = others[0][0]
    if kind(node) == "Reshape":
        return first.reshape(node.get_output_shape(0)), held
    return (first - second if kind(node) == "Subtract" else first * second), held
