"""ONNX, or the toy's own graph, → model.toy: "TOY1", and the graph deflated."""

from __future__ import annotations

import zlib
from pathlib import Path

from edgecv.backends.toy.run import FILE, MAGIC, Session

from edgecv.backends import Compiled
from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.keys.versions import version
from edgecv.target import Target

OPSET = 21


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model.toy. Raises UnsupportedError (another format), EngineError."""
    import onnx

    content = graph.path.read_bytes()
    if graph.format == "onnx":
        try:  # the evaluator knows Q/DQ nodes from there on
            model = onnx.version_converter.convert_version(onnx.load_model(str(graph.path)), OPSET)
        except Exception as e:
            raise UnsupportedError(target.name, f"Toy reads opset {OPSET}: {e}") from None
        content = MAGIC + zlib.compress(model.SerializeToString(deterministic=True), 9)
    elif graph.format != "toy":
        raise UnsupportedError(target.name, f"Toy reads .onnx and .toy, not .{graph.format}")
    session = Session({FILE: content})
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_bytes(content)
    return Compiled((FILE,), session.inputs, session.outputs, {"onnx": str(version("onnx"))})
