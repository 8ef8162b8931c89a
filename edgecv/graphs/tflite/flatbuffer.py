"""Read, edit and write .tflite files, host side (schema: TensorFlow Lite `schema.fbs`).

The editor is LiteRT's own `ai_edge_litert.tools.flatbuffer_utils`, used in this one place.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import ModelError, missing

# Enough for one classifier, and what LiteRT's own converter calls it.
SIGNATURE = b"serving_default"


def read(path: Path) -> Any:
    """The file as an editable ModelT. Raises ModelError when it is not a .tflite file."""
    return parse(path.read_bytes(), str(path))


def parse(content: bytes, where: str) -> Any:
    """Bytes as an editable ModelT; where names them in the error."""
    tools = _tools()
    if content[4:8] != b"TFL3":
        raise ModelError(where, "is not a .tflite file")
    try:
        return tools.read_model_from_bytearray(bytearray(content))
    except Exception as e:
        # A truncated flatbuffer fails in any of a dozen ways, none with a type of its own.
        raise ModelError(where, "is truncated or damaged") from e


def write(model: Any, path: Path) -> None:
    """Write the model; the same model gives the same bytes."""
    path.write_bytes(written(model))


def written(model: Any) -> bytes:
    """What `write` writes."""
    return bytes(_tools().convert_object_to_bytearray(model))


def op_name(model: Any, op: Any) -> str:
    """ "CONV_2D" for an operator of that model; the custom name for a custom one."""
    code = model.operatorCodes[op.opcodeIndex]
    if code.customCode:
        return str(bytes(code.customCode).decode())
    return _builtin_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


def op_counts(model: Any) -> dict[str, int]:
    """Operators by name, sorted: {"ADD": 9, "CONV_2D": 33}."""
    return dict(sorted(Counter(op_name(model, op) for op in graph_of(model).operators).items()))


def graph_of(model: Any) -> Any:
    """Its one subgraph. Raises ModelError for control flow (more than one)."""
    if len(model.subgraphs) != 1:
        raise ModelError("graph", f"has {len(model.subgraphs)} subgraphs, one is supported")
    return model.subgraphs[0]


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """A constant tensor's values (a copy), or None for an activation."""
    if is_activation(model, tensor):
        return None
    data = model.buffers[tensor.buffer].data
    dtype = _numpy_types()[tensor.type]
    return np.frombuffer(bytes(data), dtype).reshape(tuple(tensor.shape)).copy()


def is_activation(model: Any, tensor: Any) -> bool:
    """Whether the file holds no values of a tensor."""
    data = model.buffers[tensor.buffer].data
    return data is None or len(data) == 0


def type_name(number: int) -> str:
    """ "FLOAT32" of a tensor's type."""
    return _type_names().get(int(number), f"type {number}")


def set_constant(model: Any, tensor: Any, values: np.ndarray) -> None:
    """Give a tensor new values in a buffer of its own (buffers may be shared)."""
    schema = _tools().schema_fb
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def add_op(model: Any, name: str, version: int = 1) -> int:
    """Index of that builtin's operator code, appended if the model has none."""
    schema = _tools().schema_fb
    builtin = getattr(schema.BuiltinOperator, name)
    for i, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return i
    code = schema.OperatorCodeT()
    # The old one-byte field saturates; readers take the larger of the two.
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def raise_codes(model: Any) -> bool:
    """Say which operators they are in the field that newer readers take alone; whether any was not.

    Files from before 2020 have the old one-byte field only, and the new one's 0 is ADD.
    """
    old = [c for c in model.operatorCodes if c.builtinCode < c.deprecatedBuiltinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    return bool(old)


def new(kind: str) -> Any:
    """An empty schema object: new("TensorT")."""
    return getattr(_tools().schema_fb, kind)()


def enum(kind: str, name: str) -> int:
    """A schema constant: enum("TensorType", "INT8")."""
    return int(getattr(getattr(_tools().schema_fb, kind), name))


def add_tensor(model: Any, name: str, shape: list[int]) -> int:
    """Index of a new float tensor without values."""
    graph, tensor = graph_of(model), new("TensorT")
    tensor.shape, tensor.type, tensor.name = shape, enum("TensorType", "FLOAT32"), name.encode()
    tensor.buffer, tensor.hasRank = 0, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def tidy(model: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Names that do not depend on who converted it: the bytes are then a function of the network.

    Tensors are named after the operator that makes or reads them ("conv_2d_3", "conv_2d_3.1" its
    second operand); inputs and outputs as given, in the file's signature too. Metadata (converter
    versions, conversion reports), debug strings and constants that nothing reads any more go.
    """
    graph = graph_of(model)
    model.description = b"edgecv"
    model.metadata = model.metadataBuffer = model.signatureDefs = None
    drop_unread(model)
    graph.name = b"main"
    names: dict[int, str] = {}
    for i, op in enumerate(graph.operators):
        own = f"{op_name(model, op).lower()}_{i}"
        for k, t in enumerate(op.outputs):
            names.setdefault(int(t), own if k == 0 else f"{own}:{k}")
        for k, t in enumerate(op.inputs):
            names.setdefault(int(t), f"{own}.{k}")
    names |= dict(zip(map(int, graph.inputs), inputs, strict=True))
    names |= dict(zip(map(int, graph.outputs), outputs, strict=True))
    for i, tensor in enumerate(graph.tensors):
        tensor.name = names.get(i, f"inner_{i}").encode()  # what an operator keeps for itself
    sign(model, inputs, outputs)


def drop_unread(model: Any) -> None:
    """Keep the tensors that an operator reads or makes, which get new numbers, the buffers of those
    that one reads, and the first buffer, which the format wants empty."""
    graph = graph_of(model)
    _drop_tensors(model)
    tensors, ends = graph.tensors, [*graph.inputs, *graph.outputs]
    read = {int(t) for op in graph.operators for t in op.inputs} | set(map(int, ends))
    for i, tensor in enumerate(tensors):
        if i not in read:
            tensor.buffer = 0
    kept = sorted({0, *(int(t.buffer) for t in tensors)})
    place = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[i] for i in kept]
    for tensor in tensors:
        tensor.buffer = place[int(tensor.buffer)]


def _drop_tensors(model: Any) -> None:
    """Those that no operator and no end of the graph knows: other tools want values of them."""
    graph = graph_of(model)
    signed = [t for s in model.signatureDefs or () for t in (*s.inputs, *s.outputs)]
    sides = [
        (op, side) for op in graph.operators for side in ("inputs", "outputs", "intermediates")
    ]
    sides += [(graph, "inputs"), (graph, "outputs")]
    known = {int(t) for owner, side in sides for t in _indices(owner, side)}
    known |= {int(t.tensorIndex) for t in signed}
    kept = [i for i in range(len(graph.tensors)) if i in known]
    if len(kept) == len(graph.tensors):
        return
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}  # -1: an operand left out
    graph.tensors = [graph.tensors[i] for i in kept]
    for owner, side in sides:
        if len(found := _indices(owner, side)):
            setattr(owner, side, [place[int(t)] for t in found])
    for one in signed:
        one.tensorIndex = place[int(one.tensorIndex)]


def _indices(owner: Any, side: str) -> Any:
    found = getattr(owner, side)
    return () if found is None else found


def sign(model: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Give the file one signature, with these names for its graph's inputs and outputs."""
    graph, signature = graph_of(model), new("SignatureDefT")
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0

    def entries(names: tuple[str, ...], tensors: Any) -> list[Any]:
        made = []
        for name, index in zip(names, tensors, strict=True):
            entry = new("TensorMapT")
            entry.name, entry.tensorIndex = name.encode(), int(index)
            made.append(entry)
        return made

    signature.inputs = entries(inputs, graph.inputs)
    signature.outputs = entries(outputs, graph.outputs)
    model.signatureDefs = [signature]


def _tools() -> Any:
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ModuleNotFoundError:
        raise missing("ai-edge-litert", "tflite", "tflite") from None
    return flatbuffer_utils


@cache
def _builtin_names() -> dict[int, str]:
    members = vars(_tools().schema_fb.BuiltinOperator)
    return {v: k for k, v in members.items() if isinstance(v, int)}


@cache
def _type_names() -> dict[int, str]:
    members = vars(_tools().schema_fb.TensorType)
    return {v: k for k, v in members.items() if isinstance(v, int)}


@cache
def _numpy_types() -> dict[int, Any]:
    known: dict[str, Any]
    known = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT64": np.int64}
    known |= {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "BOOL": np.bool_}
    return {enum("TensorType", name): dtype for name, dtype in known.items()}
