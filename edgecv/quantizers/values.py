"""Every tensor that a float graph file holds for one image, and its layers' weights, by name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from edgecv.graph import Graph

# Operator -> the order of its weight's axes that puts the output channel first, as PyTorch does.
TFLITE_AXES = {
    "CONV_2D": (0, 3, 1, 2),
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),
    "FULLY_CONNECTED": (0, 1),
}


def tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """The input, what every operator makes, and the output. image: float32 (1, C, H, W)."""
    return _onnx_tensors(graph, image) if graph.format == "onnx" else _tflite_tensors(graph, image)


def weights(graph: Graph) -> dict[str, np.ndarray]:
    """Constant weights of convolutions and dense layers, output channel first."""
    return _onnx_weights(graph) if graph.format == "onnx" else _tflite_weights(graph)


def _onnx_tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    import onnx
    import onnxruntime as ort

    model = onnx.shape_inference.infer_shapes(onnx.load_model(str(graph.path)))
    known = {v.name: v for v in model.graph.value_info}
    ends = {o.name for o in model.graph.output}
    made = [n for node in model.graph.node for n in node.output]
    model.graph.output.extend(known[n] for n in made if n in known and n not in ends)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (source,) = session.get_inputs()
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(names, {source.name: image}), strict=True))
    return {source.name: image, **found}


def _onnx_weights(graph: Graph) -> dict[str, np.ndarray]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model(str(graph.path))
    held = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in held:
            continue
        value = numpy_helper.to_array(held[node.input[1]])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        found[node.input[1]] = value if node.op_type == "Conv" or turned else value.T
    return found


def _tflite_tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    from edgecv.backends.tflite import flatbuffer
    from edgecv.backends.tflite.run import engine, quiet

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


def _tflite_weights(graph: Graph) -> dict[str, np.ndarray]:
    from edgecv.backends.tflite import flatbuffer

    model = flatbuffer.read(graph.path)
    main: Any = flatbuffer.graph_of(model)
    found = {}
    for op in main.operators:
        kind = flatbuffer.op_name(model, op)
        if kind in TFLITE_AXES:
            tensor = main.tensors[int(op.inputs[1])]
            value = flatbuffer.constant(model, tensor)
            if value is not None and value.dtype == np.float32:
                found[tensor.name.decode()] = value.transpose(TFLITE_AXES[kind])
    return found
