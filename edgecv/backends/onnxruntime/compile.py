"""ONNX Runtime, host side: the .onnx file is what the device loads.

Nothing is optimised ahead: ONNX Runtime's offline graphs are tied to the instruction set of the
machine that wrote them ("Graph optimizations", onnxruntime.ai: offline mode), and a session
optimises for its own machine in milliseconds. Convolutions of ±1 become operators that count bits
(`edgecv.binary.lowering`), activations between integers look-ups (`tables.py`), a first layer of
few channels has smaller steps (`stem.py`), every k-th channel is picked by weights (`slices.py`),
averages are convolutions (`averages.py`); a softmax over channels has one axis behind them
(`softmax.py`).
"""

from __future__ import annotations

from pathlib import Path

from edgecv.backends import Compiled
from edgecv.backends.onnxruntime.averages import averaged
from edgecv.backends.onnxruntime.run import ENGINE, EXTRA, Session, probe
from edgecv.backends.onnxruntime.slices import unsliced
from edgecv.backends.onnxruntime.softmax import flattened
from edgecv.backends.onnxruntime.stem import rearranged
from edgecv.backends.onnxruntime.tables import looked_up
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
    data, counted, looked = graph.path.read_bytes(), 0, 0
    if "Where" in graph.facts.get("ops", {}):
        data, counted = _lowered(data)
    if graph.precision == "int8":
        data, looked = _in_integers(data)
    if "Softmax" in graph.facts.get("ops", {}):
        data = _flattened(data)
    session = Session({FILE: data}, target.threads)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_bytes(data)
    kernels = library.told() if counted or looked else library.Told(True)
    notes = (
        []
        if kernels.here or not counted
        else [f"{counted} one-bit layers ran in floats here: the binary kernels {kernels.reason}"]
    )
    if looked and not kernels.here:
        notes.append(
            f"{looked} look-ups of activations ran slowly here: the kernels {kernels.reason}"
        )
    return Compiled(
        files=(FILE,),
        inputs=session.inputs,
        outputs=session.outputs,
        versions={ENGINE: str(found.version)}
        | ({"binary kernels": kernels.digest} if kernels.digest else {}),
        notes=tuple(notes),
        counted=counted if kernels.here else 0,
    )


def _in_integers(data: bytes) -> tuple[bytes, int]:
    """The file with what is faster in integers, and how many activations are tables."""
    import onnx

    model = onnx.load_model_from_string(data)
    looked = looked_up(model)
    changed = looked + rearranged(model) + unsliced(model) + averaged(model)
    return (model.SerializeToString(deterministic=True) if changed else data), looked


def _flattened(data: bytes) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    return model.SerializeToString(deterministic=True) if flattened(model) else data


def _lowered(data: bytes) -> tuple[bytes, int]:
    """The file with what can be counted, and how many layers that is."""
    import onnx

    from edgecv.binary.lowering import lower

    model = onnx.load_model_from_string(data)
    counted = len(lower(model))
    return (model.SerializeToString(deterministic=True) if counted else data), counted
