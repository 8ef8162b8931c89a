"""ONNX Runtime, host side: the .onnx file is what the device loads.

Nothing is optimised ahead: ONNX Runtime's offline graphs are tied to the instruction set of the
machine that wrote them ("Graph optimizations", onnxruntime.ai: offline mode), and a session
optimises for its own machine in milliseconds. Convolutions of ±1 become operators that count bits
(`edgecv.binary.lowering`).
"""

from __future__ import annotations

from pathlib import Path

from edgecv.backends import Compiled
from edgecv.backends.onnxruntime.run import ENGINE, EXTRA, Session, probe
from edgecv.binary import library
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
    data, counted = graph.path.read_bytes(), 0
    if "Where" in graph.facts.get("ops", {}):
        data, counted = _lowered(data)
    session = Session({FILE: data}, target.threads)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_bytes(data)
    kernels = library.told() if counted else library.Told(True)
    return Compiled(
        files=(FILE,),
        inputs=session.inputs,
        outputs=session.outputs,
        versions={ENGINE: str(found.version)}
        | ({"binary kernels": kernels.digest} if kernels.digest else {}),
        notes=() if kernels.here else (f"{counted} one-bit layers ran in floats here: the binary "
                                       f"kernels {kernels.reason}",),
        counted=counted if kernels.here else 0,
    )  # fmt: skip


def _lowered(data: bytes) -> tuple[bytes, int]:
    """The file with what can be counted, and how many layers that is."""
    import onnx

    from edgecv.binary.lowering import lower

    model = onnx.load_model_from_string(data)
    counted = len(lower(model))
    return (model.SerializeToString(deterministic=True) if counted else data), counted
