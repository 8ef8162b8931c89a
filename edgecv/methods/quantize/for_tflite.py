"""How .tflite files are made int8 and fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.quantize._tflite_layers import known_as
from edgecv.methods.quantize.half import SMALL, as_half
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.samples import CalibrationData
from edgecv.target import Target


def quantize(
    source: Graph,
    samples: CalibrationData,
    target: Target,
    out: Path,
    options: Options,
    measured: Any,
) -> Graph:
    """The int8 graph in out/. measured: what calibration tells, kept from one call to the next"""
    return quantize_tflite(source, samples, target.grid, target.io, out, options, measured)


def floats(source: Graph, measured: Any, options: Options) -> bytes:
    """The float file as it was quantized. measured: what `quantize` kept"""
    del source
    return bytes(measured[options.equalization].content)


def layers(source: Graph, measured: Any, options: Options) -> dict[str, frozenset[str]]:
    """What `keep_float` calls the layers (`keep_float.py`)."""
    del measured, options
    return known_as(flatbuffer.read(source.path))


def halve(graph: Graph, path: Path, compute: bool) -> dict[str, int]:  # noqa: ARG001
    """Write the graph with weights in fp16; its operators' counts."""
    model = flatbuffer.read(graph.path)
    _stored(model)
    flatbuffer.write(model, path)
    return flatbuffer.op_counts(model)


def _stored(model: Any) -> None:
    """Constants in fp16, a DEQUANTIZE behind each, which XNNPACK does once, when it packs them."""
    graph = flatbuffer.graph_of(model)
    real, half = (flatbuffer.enum("TensorType", k) for k in ("FLOAT32", "FLOAT16"))
    unpack, added = flatbuffer.add_op(model, "DEQUANTIZE"), []
    for place in range(len(graph.tensors)):
        tensor = graph.tensors[place]
        values = flatbuffer.constant(model, tensor) if tensor.type == real else None
        if values is None or values.size < SMALL:
            continue
        small = flatbuffer.new("TensorT")
        small.name, small.shape, small.type = tensor.name + b"/fp16", tensor.shape, half
        graph.tensors.append(small)
        flatbuffer.set_constant(model, small, as_half(tensor.name.decode(), values))
        tensor.buffer = 0  # made by the operator now
        op = flatbuffer.new("OperatorT")
        op.opcodeIndex, op.inputs, op.outputs = unpack, [len(graph.tensors) - 1], [place]
        added.append(op)
    graph.operators = [*added, *graph.operators]
    names = [tuple(graph.tensors[t].name.decode() for t in side)
             for side in (graph.inputs, graph.outputs)]  # fmt: skip
    flatbuffer.drop_unread(model)
    flatbuffer.sign(model, *names)
