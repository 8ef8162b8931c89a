"""w ≈ fp16(w): half the bytes, 11 bits of every weight, and no image needed.

    storage  weights are kept in fp16 and unpacked to fp32 when the engine loads them (ONNX Runtime,
             OpenVINO, LiteRT): half the file, the same time, the same memory
    compute  the network computes in fp16 (TensorRT, which does what the file says)

bf16 (8 bits of every number, float32's range) is no matter of the file: the graph stays as it is
and carries the wish, which OpenVINO follows on processors with AVX-512-BF16 or AMX.

CPUs without fp16 arithmetic compute it slower than fp32, so nothing but a GPU is given fp16
activations here. A weight beyond 65,504 has no fp16 and is refused; what is below 6e-8 becomes 0.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.errors import ModelError, missing
from edgecv.graph import Graph

LARGEST = float(np.finfo(np.float16).max)
SMALL = 64  # values; a shorter tensor (a bias) is not worth an operator of its own


def halve(graph: Graph, out: Path, compute: bool = False) -> Graph:
    """Write out/ with the graph's weights in fp16.

    graph: a float graph. compute: ONNX only, activations in fp16 too; inputs and outputs stay
    float32. Same graph, same bytes.
    Raises ModelError: not a float graph, a weight that fp16 does not hold.
    """
    if graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision}, not fp32")
    out.mkdir(parents=True, exist_ok=True)
    path = out / graph.path.name
    if graph.format == "onnx":
        model = _onnx_compute(graph) if compute else _onnx_storage(graph)
        path.write_bytes(model.SerializeToString(deterministic=True))
        ops = dict(sorted(Counter(n.op_type for n in model.graph.node).items()))
    else:
        editable = flatbuffer.read(graph.path)
        _tflite_storage(editable)
        flatbuffer.write(editable, path)
        ops = flatbuffer.op_counts(editable)
    facts = {**graph.facts, "ops": ops, "half": "compute" if compute else "storage", "warnings": []}
    made = Graph(path, graph.format, "fp16", graph.inputs, graph.outputs, facts)
    made.save_facts()
    return made


def brain(graph: Graph, out: Path) -> Graph:
    """Write out/ with the float graph as it is, to be computed in bf16.

    Raises ModelError: not a float graph.
    """
    if graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision}, not fp32")
    out.mkdir(parents=True, exist_ok=True)
    path = out / graph.path.name
    path.write_bytes(graph.path.read_bytes())
    facts = {**graph.facts, "warnings": []}
    made = Graph(path, graph.format, "bf16", graph.inputs, graph.outputs, facts)
    made.save_facts()
    return made


def _onnx_storage(graph: Graph) -> Any:
    """Initializers in fp16, a Cast behind each, which engines do once, when they load the file."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load_model(str(graph.path))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(_half(name, values), f"{name}/fp16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}/fp16"], [name], f"{name}/unpack", to=1)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _onnx_compute(graph: Graph) -> Any:
    """ONNX Runtime's own conversion, between Cast nodes at the network's ends."""
    try:
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as e:
        raise missing(e.name or "onnxruntime", "compress", "quantize") from None
    from onnx import TensorProto, numpy_helper

    from edgecv.stages.export.onnx import strip

    model = onnx.load_model(str(graph.path))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            _half(tensor.name, numpy_helper.to_array(tensor))
    made = convert_float_to_float16(model, keep_io_types=True)
    ONNXModel(made).topological_sort()  # it leaves the casts of the inputs at the end
    strip(made)
    onnx.checker.check_model(made, full_check=True)
    return made


def _tflite_storage(model: Any) -> None:
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
        flatbuffer.set_constant(model, small, _half(tensor.name.decode(), values))
        tensor.buffer = 0  # made by the operator now
        op = flatbuffer.new("OperatorT")
        op.opcodeIndex, op.inputs, op.outputs = unpack, [len(graph.tensors) - 1], [place]
        added.append(op)
    graph.operators = [*added, *graph.operators]
    names = [tuple(graph.tensors[t].name.decode() for t in side)
             for side in (graph.inputs, graph.outputs)]  # fmt: skip
    flatbuffer.drop_unread(model)
    flatbuffer.sign(model, *names)


def _half(name: str, values: np.ndarray) -> np.ndarray:
    most = float(np.abs(values).max(initial=0.0))
    if most > LARGEST:
        what = f"weight {name!r} holds {most:.3g}, fp16 ends at {LARGEST:g}"
        raise ModelError("quantize", what, "fold or clip what scales it, or leave it fp32")
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float16)
