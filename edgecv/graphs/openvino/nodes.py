"""The nodes of an ov.Model: what they are, who makes and reads what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HELD = ("Constant", "Parameter", "Result")  # nodes that are no work


def kind(node: Any) -> str:
    """ "Convolution", "MatMul", ..."""
    return str(node.get_type_name())


def name(node: Any) -> str:
    """What the file calls it."""
    return str(node.get_friendly_name())


def source(node: Any, place: int = 0) -> Any:
    """The node that makes its input at that place."""
    return node.input_value(place).get_node()


def sources(node: Any) -> list[Any]:
    """The nodes that make its inputs."""
    return [value.get_node() for value in node.input_values()]


def readers(node: Any) -> list[Any]:
    """The nodes that read its outputs, one for each input that does."""
    return [port.get_node() for out in node.outputs() for port in out.get_target_inputs()]


def rank(node: Any) -> int | None:
    """Of its first output; None where it is dynamic."""
    found = node.get_output_partial_shape(0).rank
    return found.get_length() if found.is_static else None


def above(node: Any, of_rank: int | None = None) -> Iterator[Any]:
    """A node and what it is made of, as far as all of that has one rank (None: any)."""
    waiting, seen = [node], set[str]()
    while waiting:
        at = waiting.pop()
        if at.get_name() in seen:
            continue
        seen.add(at.get_name())
        if of_rank is None or rank(at) == of_rank:
            yield at
            waiting.extend(sources(at))
