"""A user's .tflite file made static and float where it only stores otherwise.

Weights that are stored in fp16, in int8 or with their zeros left out, and unpacked before they are
used (DEQUANTIZE, DENSIFY of constants), become the floats that they stand for, as those of .onnx
files do: LiteRT's own kernels say what they are. Where layers compute in integers nothing of that
is touched.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import engine, quiet
from edgecv.errors import ModelError, UnsupportedError, one_line
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS

UNPACKING = ("DEQUANTIZE", "DENSIFY")
LAYERS = (*OPERANDS, "BATCH_MATMUL", "CONV_3D", "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM")
INTEGERS = ("INT8", "UINT8")
CHANNELS = (1, 3, 4)


def kind(tensor: Any) -> str:
    """A tensor's type in the schema's word, "FLOAT32"."""
    return flatbuffer.type_name(tensor.type)


def interpreter(content: bytes, where: str, everything: bool = False) -> Any:
    """LiteRT's interpreter of a file without delegates, not allocated.

    everything: keep what each operator makes. Raises UnsupportedError naming an operator that
    LiteRT has not, ModelError.
    """
    kernels = engine().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "preserve_all_tensors is for debugging": it is
            return engine().Interpreter(
                model_content=content, num_threads=1, experimental_op_resolver_type=kernels,
                experimental_preserve_all_tensors=everything,
            )  # fmt: skip
    except (ValueError, RuntimeError) as e:
        raise refused(e, where) from None


def refused(error: Exception, where: str) -> ModelError | UnsupportedError:
    """A file that LiteRT does not take, in a sentence."""
    said = one_line(error)
    return ModelError(where, f"LiteRT refuses it: {said}", "convert it again")


def pin(content: bytes, model: Any, where: str, size: tuple[int, int] | None) -> bool:
    """Write static shapes into an editable model, in place; whether any was open.

    size: (height, width) where the file leaves them open
    Raises ModelError: a batch of several, an open dimension that nobody gave.
    """
    graph = flatbuffer.graph_of(model)
    asked = {int(i): _static(graph.tensors[i], where, size) for i in graph.inputs}
    same = all(list(graph.tensors[i].shape) == shape for i, shape in asked.items())
    if same and all(t.shapeSignature is None for t in graph.tensors):
        return False
    net = interpreter(content, where)
    try:
        with quiet():
            for index, shape in asked.items():
                net.resize_tensor_input(index, shape)
            net.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        raise refused(e, where) from None
    known = {int(t["index"]): [int(n) for n in t["shape"]] for t in net.get_tensor_details()}
    for index, tensor in enumerate(graph.tensors):
        tensor.shapeSignature = None
        if index in known and flatbuffer.is_activation(model, tensor):
            tensor.shape = known[index]
    return True


def _static(tensor: Any, where: str, size: tuple[int, int] | None) -> list[int]:
    """An input's shape with what is open filled in."""
    place = f"{where}: input {tensor.name.decode(errors='replace')!r}"
    shape = [int(n) for n in tensor.shape]
    signature = tensor.shapeSignature
    open_ = [-1 if n < 1 else n for n in (shape if signature is None else map(int, signature))]
    if len(open_) != len(shape):
        raise ModelError(place, f"has shapes {shape} and {open_}", "convert it again")
    found = list(open_)
    if found and found[0] < 1:
        found[0] = 1
    if len(found) == 4:
        first = open_[1] in CHANNELS and open_[3] not in CHANNELS
        sides = (2, 3) if first else (1, 2)
        for at, side in zip(sides, size or (-1, -1), strict=True):
            found[at] = side if found[at] < 1 else found[at]
    missing = [i for i, n in enumerate(found) if n < 1]
    if missing:
        one = len(found) == 4 and size is None and missing[0] != 3
        hint = "give --input-size (data.size in a recipe)" if one else "convert it fixed"
        raise ModelError(place, f"dimension {missing[0]} of {open_} is dynamic", hint)
    return found


def unpacked(content: bytes, model: Any, where: str) -> int:
    """Replace constants that are unpacked before use by what they stand for, in place; how many.

    content: the model as it is. Raises ModelError.
    """
    graph = flatbuffer.graph_of(model)
    constants = {i for i, t in enumerate(graph.tensors) if not flatbuffer.is_activation(model, t)}
    unpacking = []
    for op in graph.operators:
        named = flatbuffer.op_name(model, op) in UNPACKING
        if named and all(int(t) in constants for t in op.inputs):
            constants |= {int(t) for t in op.outputs}
            unpacking.append(op)
    if not unpacking:
        return 0
    net = interpreter(content, where, everything=True)
    try:
        with quiet():
            net.allocate_tensors()
            net.invoke()
        values = {int(t): np.array(net.get_tensor(int(t))) for op in unpacking for t in op.outputs}
    except (ValueError, RuntimeError) as e:
        raise refused(e, where) from None
    gone = {id(op) for op in unpacking}
    graph.operators = [op for op in graph.operators if id(op) not in gone]
    ends = {*map(int, graph.outputs)}
    for index in {int(t) for op in graph.operators for t in op.inputs if t >= 0} | ends:
        if index in values:
            tensor = graph.tensors[index]
            tensor.quantization = None
            flatbuffer.set_constant(model, tensor, values[index])
    model.metadata = None  # of the file as it was; its buffers would be dropped
    flatbuffer.drop_unread(model)
    return len(unpacking)


def computes(model: Any) -> dict[str, list[str]]:
    """Layers by what they compute in: their outputs' names under "int8", "int16", "dynamic" (int8
    weights, what they read is quantized as it comes) and "fp32"."""
    graph = flatbuffer.graph_of(model)
    found: dict[str, list[str]] = {}
    for op in graph.operators:
        if flatbuffer.op_name(model, op) not in LAYERS:
            continue
        made = graph.tensors[op.outputs[0]]
        reads = [kind(graph.tensors[t]) for t in op.inputs if t >= 0]
        how = {"INT8": "int8", "UINT8": "int8", "INT16": "int16"}.get(kind(made), "fp32")
        if how == "fp32" and any(k in (*INTEGERS, "INT4") for k in reads):
            how = "dynamic"
        found.setdefault(how, []).append(made.name.decode(errors="replace"))
    return found


def has_integers(model: Any) -> bool:
    """Whether values that are computed are integers on a grid."""
    graph = flatbuffer.graph_of(model)
    return any(
        kind(graph.tensors[t]) in (*INTEGERS, "INT16")
        and graph.tensors[t].quantization is not None
        and graph.tensors[t].quantization.scale is not None
        for op in graph.operators
        for t in op.outputs
        if flatbuffer.op_name(model, op) not in UNPACKING
    )
