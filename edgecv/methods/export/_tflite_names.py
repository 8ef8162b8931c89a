"""Weights in a .tflite file called after the layers of the model: "stage1.0.conv1.weight".

LiteRT's converter keeps no names of modules, and a profile that says "conv_2d_5" leaves its reader
counting. A weight is a layer's own when each of its output channels is a multiple of that layer's,
which is what folding a batch normalisation makes of it:

    w'[o] = w[o] * gamma[o] / sigma[o]

A weight that is so of two layers, or of none, keeps the name it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import FORWARD, outputs_first

_PARALLEL = 1 - 1e-4  # least |cosine|; rounding moves it by 1e-6, another layer's is far below
_SUFFIX = ".weight"


def name_weights(model: Any, state: Mapping[str, Any]) -> int:
    """Name the weights of an editable float model in place; how many were named.

    state: a module's state_dict, CPU tensors
    """
    known = {
        name: _directions(np.asarray(tensor.detach(), np.float32))
        for name, tensor in state.items()
        if name.endswith(_SUFFIX) and tensor.ndim in (2, 4)
    }
    named = 0
    for kind, tensor in _weights(model):
        values = flatbuffer.constant(model, tensor)
        if values is None or values.dtype != np.float32:
            continue
        found = _directions(outputs_first(kind, values))
        owners = [name for name, rows in known.items() if _same(found, rows)]
        if len(owners) == 1:
            tensor.name = owners[0].encode()
            named += 1
    return named


def copy_names(model: Any, float_model: Any) -> None:
    """Give the weights of a quantized model, in place, the names that they have in the float one
    that it was made of. What quantizing adds (QUANTIZE) has no weights."""
    pairs = list(zip(_weights(model), _weights(float_model), strict=True))
    for (_, tensor), (_, twin) in pairs:
        if twin.name.endswith(_SUFFIX.encode()):
            tensor.name = twin.name


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    """(operator, the tensor of its weight), in the file's order."""
    graph = flatbuffer.graph_of(model)
    for op in graph.operators:
        if (kind := flatbuffer.op_name(model, op)) in FORWARD:
            yield kind, graph.tensors[int(op.inputs[1])]


def _directions(weight: np.ndarray) -> np.ndarray:
    """(outputs, ...) -> each output channel at length 1; one that is zero stays zero."""
    rows = weight.reshape(len(weight), -1)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0).reshape(weight.shape)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether each output channel is a multiple of the other's; of one value, each always is."""
    if one.shape != other.shape or one[0].size < 2:
        return False
    cosine = np.abs((one * other).reshape(len(one), -1).sum(1))
    # pruned and dead channels say nothing
    says = one.any(axis=tuple(range(1, one.ndim))) & other.any(axis=tuple(range(1, other.ndim)))
    return bool(says.sum() * 2 >= len(one) and (cosine[says] > _PARALLEL).all())
