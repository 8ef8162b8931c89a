"""Who makes and reads each tensor of a .tflite graph."""

from __future__ import annotations

from functools import cached_property
from typing import Any


class Index:
    """Of a SubGraphT, each table made when it is first asked for: a table does not follow what is
    edited afterwards. Tables are by the tensor's place in the file.
    """

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    @cached_property
    def makers(self) -> dict[int, Any]:
        """The operator that gives a tensor."""
        return {int(t): op for op in self.graph.operators for t in op.outputs}

    @cached_property
    def readers(self) -> dict[int, list[Any]]:
        """The operators that read a tensor, in the file's order, once for each input that does."""
        found: dict[int, list[Any]] = {}
        for op in self.graph.operators:
            for t in op.inputs:
                found.setdefault(int(t), []).append(op)
        return found
