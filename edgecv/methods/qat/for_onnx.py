"""`edgecv.methods.qat.values` of an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from edgecv.backends.onnxruntime.tensors import with_shapes
from edgecv.graph import Graph
from edgecv.graphs.onnx.layers import FORWARD, outputs_first


def tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    model = with_shapes(onnx.load_model(str(graph.path)))
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


def weights(graph: Graph) -> dict[str, np.ndarray]:
    model = onnx.load_model(str(graph.path))
    held = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in FORWARD or node.input[1] not in held:
            continue
        value = numpy_helper.to_array(held[node.input[1]])
        found[node.input[1]] = outputs_first(node, value)
    return found
