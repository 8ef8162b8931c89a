"""Windows of an ONNX node: strides, dilations, pads, groups."""

from __future__ import annotations

from typing import Any


def geometry(node: Any) -> tuple[list[int], list[int], list[int], int]:
    """Strides, dilations, pads (begins, then ends) and groups of a convolution of images."""
    known = {a.name: a for a in node.attribute}

    def numbers(name: str, default: list[int]) -> list[int]:
        return list(known[name].ints) if name in known else default

    pads = numbers("pads", [0, 0, 0, 0])
    return numbers("strides", [1, 1]), numbers("dilations", [1, 1]), pads, groups(node)


def groups(node: Any) -> int:
    """Of a convolution."""
    return integer(node, "group", 1)


def integer(node: Any, name: str, default: int) -> int:
    """An attribute that is one integer."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)
