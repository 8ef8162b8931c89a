"""`edgecv.methods.qat.values` of a .tflite file."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import engine, quiet
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import FORWARD, outputs_first


def tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    main = flatbuffer.graph_of(flatbuffer.read(graph.path))
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # "preserve_all_tensors is for debugging": it is
        net = engine().Interpreter(
            model_path=str(graph.path), num_threads=1, experimental_preserve_all_tensors=True
        )
        net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1).copy())
    net.invoke()
    every = [*main.inputs, *(t for op in main.operators for t in op.outputs)]
    real = flatbuffer.enum("TensorType", "FLOAT32")
    return {
        main.tensors[t].name.decode(): net.get_tensor(int(t))
        for t in every
        if main.tensors[t].type == real
    }


def weights(graph: Graph) -> dict[str, np.ndarray]:
    model = flatbuffer.read(graph.path)
    main: Any = flatbuffer.graph_of(model)
    found = {}
    for op in main.operators:
        kind = flatbuffer.op_name(model, op)
        if kind in FORWARD:
            tensor = main.tensors[int(op.inputs[1])]
            value = flatbuffer.constant(model, tensor)
            if value is not None and value.dtype == np.float32:
                found[tensor.name.decode()] = outputs_first(kind, value)
    return found
