"""ONNX Runtime, host side: the .onnx file is what the device loads.

Nothing is optimised ahead: ONNX Runtime's offline graphs are tied to the instruction set of the
machine that wrote them ("Graph optimizations", onnxruntime.ai: offline mode), and a session
optimises for its own machine in milliseconds.
"""

from __future__ import annotations

from pathlib import Path

from edgecv.backends import Compiled
from edgecv.backends.onnxruntime.run import ENGINE, EXTRA, Session, probe
from edgecv.errors import UnsupportedError, missing
from edgecv.graph import Graph
from edgecv.target import Target

FILE = "model.onnx"


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model.onnx, after loading it once with this ONNX Runtime.

    Raises UnsupportedError (not an ONNX graph), MissingExtraError, EngineError.
    """
    if graph.format != "onnx":
        raise UnsupportedError(target.name, f"ONNX Runtime reads .onnx, not .{graph.format}")
    found = probe()
    if not found.available:
        raise missing(ENGINE, EXTRA, target.name)
    data = graph.path.read_bytes()
    session = Session({FILE: data}, target.threads)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_bytes(data)
    return Compiled(
        files=(FILE,),
        inputs=session.inputs,
        outputs=session.outputs,
        versions={ENGINE: str(found.version)},
    )
