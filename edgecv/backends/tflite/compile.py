"""A .tflite graph is its own artifact: LiteRT reads on the device the file that was exported.

Only shuffles of channels are done by the convolutions around them (`channels.py`), which LiteRT
runs number by number, pads in front of a maximum are its own (`pools.py`), and averages of int8
convolutions (`averages.py`; the Edge TPU has them).
"""

from __future__ import annotations

from pathlib import Path

from edgecv.backends import Compiled
from edgecv.backends.tflite import custom
from edgecv.backends.tflite.averages import averaged
from edgecv.backends.tflite.pools import padded_pools
from edgecv.backends.tflite.run import Session, probe
from edgecv.backends.tflite.unshuffled import unshuffled
from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.target import Target

FILE = "model.tflite"


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write the graph to out/model.tflite, having loaded it and seen only operators of LiteRT's.

    Raises UnsupportedError (not a .tflite, custom operators, which need code of their own on the
    device), ModelError (damaged) and EngineError (LiteRT refuses it).
    """
    content = load(graph, target)
    model = flatbuffer.parse(content, FILE)
    if averaged(model):
        flatbuffer.drop_unread(model)
        content = flatbuffer.written(model)
    session = Session({FILE: content}, target.threads)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_bytes(content)
    notes = custom.notes(model)
    return Compiled((FILE,), session.inputs, session.outputs, versions(), notes=notes)


def load(graph: Graph, target: Target) -> bytes:
    """The file's bytes, checked: TFLite, one subgraph, operators that LiteRT runs; with what is
    faster."""
    where = f"compile for {target.name}"
    if graph.format != "tflite":
        raise UnsupportedError(where, f"takes a .tflite, got .{graph.format}", "export to tflite")
    content = graph.path.read_bytes()
    model = flatbuffer.parse(content, str(graph.path))
    custom.refuse_unknown(model, where)
    if not unshuffled(model) + padded_pools(model):
        return content
    flatbuffer.drop_unread(model)
    return flatbuffer.written(model)


def versions() -> dict[str, str]:
    """{"ai-edge-litert": "2.3.0"}: the engine that loaded the file."""
    name, _, version = (probe().version or "").partition(" ")
    return {name: version} if name else {}
