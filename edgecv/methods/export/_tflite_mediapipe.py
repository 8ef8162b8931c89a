"""MediaPipe's own operator of TensorFlow Lite, said with the builtin one.

    Convolution2DTransposeBias(x, w, b) = TRANSPOSE_CONV(shape of y, w, x, b)

w: (O, kh, kw, I). Its options are int32: padding (1 is SAME, 2 VALID), strides down and across. Of
LiteRT's kernels XNNPACK's alone know it, and no device without them runs it; whoever calls compares
with those.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.graphs.tflite import flatbuffer

NAME = "Convolution2DTransposeBias"
VERSION = 3  # of TRANSPOSE_CONV: the first with a bias
_PADDING = {1: "SAME", 2: "VALID"}


def said_plainly(model: Any, where: str) -> int:
    """Replace the operator in a ModelT, in place; how many there were.

    Raises UnsupportedError: options that cannot be read.
    """
    graph, count = flatbuffer.graph_of(model), 0
    for op in graph.operators:
        if flatbuffer.op_name(model, op) != NAME:
            continue
        held = b"" if op.customOptions is None else bytes(op.customOptions)
        given = [int(v) for v in np.frombuffer(held[: len(held) // 4 * 4], "<i4")[:3]]
        if len(given) < 3 or given[0] not in _PADDING or len(op.inputs) != 3:
            raise UnsupportedError(where, f"the options of {NAME} cannot be read",
                                   "convert it with builtin operators alone")  # fmt: skip
        shape = flatbuffer.new("TensorT")
        shape.shape, shape.type = [4], flatbuffer.enum("TensorType", "INT32")
        shape.name = f"{NAME.lower()}_{count}/shape".encode()
        graph.tensors.append(shape)
        wanted = np.asarray(graph.tensors[int(op.outputs[0])].shape, np.int32)
        flatbuffer.set_constant(model, shape, wanted)
        x, w, b = (int(i) for i in op.inputs)
        op.inputs = [len(graph.tensors) - 1, w, x, b]
        op.opcodeIndex = flatbuffer.add_op(model, "TRANSPOSE_CONV", VERSION)
        options = flatbuffer.new("TransposeConvOptionsT")
        options.padding = flatbuffer.enum("Padding", _PADDING[given[0]])
        options.strideH, options.strideW = given[1:]
        op.builtinOptions, op.customOptions = options, None
        op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "TransposeConvOptions")
        count += 1
    return count
