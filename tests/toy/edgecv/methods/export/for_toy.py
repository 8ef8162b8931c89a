"""The road to a graph of the toy's own format: ONNX's, deflated."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

from edgecv.backends.toy.run import FILE, MAGIC

from edgecv.context import Context
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx

VALUES: set[str] = set()


def export(module: Any, example: Any, context: Context, opset: int, where: str) -> Graph:
    """The graph of a torch network, in context.out."""
    made = export_onnx(module, example, context.out, opset, where)
    path = context.out / FILE
    path.write_bytes(MAGIC + zlib.compress(made.path.read_bytes(), 9))
    made.path.unlink()
    return replace(made, path=path, format="toy")


def ends(graph: Graph) -> list[str]:
    """The operator that makes each output: none that is known."""
    return [""] * len(graph.outputs)
