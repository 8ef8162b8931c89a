"""Walks over a graph from one of its nodes, whatever the format.

near(node, way)    the nodes before (way -1) or after (1) it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Node = TypeVar("Node")


def beyond(
    start: Node,
    near: Callable[[Node], Iterable[Node]],
    key: Callable[[Node], object],
    stops: Callable[[Node], bool],
) -> Iterator[Node]:
    """Every node that a walk from `start` meets, the nearest first; not past one that stops it.

    key: what makes a node the same node again; the start is not among them
    """
    seen, row = {key(start)}, [start]
    while row:
        following = []
        for node in row:
            for other in near(node):
                if key(other) in seen:
                    continue
                seen.add(key(other))
                yield other
                if not stops(other):
                    following.append(other)
        row = following
