"""The nodes and weights of an .onnx file, by name: all that a profile needs of it.

A device has no `onnx` package. An .onnx file is a Protocol Buffers message: fields, each a varint
key (number << 3 | kind) and a value whose length its kind tells. Numbers are those of onnx.proto;
everything else in the file is skipped, and weights are not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR = 1, 2, 3, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME = 1, 2, 8

# TensorProto.DataType -> bits of one element
BITS = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64},
    **{15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4},
}


@dataclass(frozen=True)
class Node:
    """One operator of the graph; inputs and outputs are the names of tensors."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The graph's nodes in the file's order, and the bytes of its weights by name."""

    nodes: tuple[Node, ...]
    weights: dict[str, int]

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The node that gives a tensor, by its name."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def read(content: bytes) -> Network:
    """The network of an .onnx file. Raises ValueError where the bytes are none."""
    nodes: list[Node] = []
    weights: dict[str, int] = {}
    for number, graph in fields(memoryview(content)):
        if number != MODEL_GRAPH:
            continue
        for kind, value in fields(_message(graph)):
            if kind == GRAPH_NODE:
                nodes.append(_node(_message(value)))
            elif kind == GRAPH_INITIALIZER:
                name, size = _weight(_message(value))
                weights[name] = size
    return Network(tuple(nodes), weights)


def _node(message: memoryview) -> Node:
    found: dict[int, list[str]] = {}
    for number, value in fields(message):
        if number <= NODE_OPERATOR:
            found.setdefault(number, []).append(_text(value))
    (name,), (op,) = found.get(NODE_NAME, [""]), found.get(NODE_OPERATOR, [""])
    return Node(name, op, tuple(found.get(NODE_INPUT, ())), tuple(found.get(NODE_OUTPUT, ())))


def _weight(message: memoryview) -> tuple[str, int]:
    """An initializer's name and size in bytes; its values are not looked at."""
    name, bits, dims = "", 0, []
    for number, value in fields(message):
        if number == TENSOR_NAME:
            name = _text(value)
        elif number == TENSOR_TYPE and isinstance(value, int):
            bits = BITS.get(value, 0)
        elif number == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
    return name, (prod(dims) * bits + 7) // 8


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, an integer or the bytes of a text, message or packed list)."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"not a field: kind {kind}")
        if place + size > end:
            raise ValueError("cut short")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("cut short")
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _varints(packed: memoryview) -> Iterator[int]:
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
