"""How ONNX graphs are made int8 and fp16."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends import facts
from edgecv.bundling.task_fidelity import TaskFidelity
from edgecv.errors import missing
from edgecv.graph import Graph
from edgecv.graphs.onnx import attention
from edgecv.graphs.onnx.layers import PRODUCTS
from edgecv.graphs.onnx.names import node_names
from edgecv.methods.quantize.half import SMALL, as_half
from edgecv.methods.quantize.mixed import Problem
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Options, Sensitivity
from edgecv.methods.quantize.sensitivity import Progress
from edgecv.runtime.fidelity import kinds
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
    if options.engine == "nncf":
        from edgecv.methods.quantize.nncf import quantize_nncf

        return quantize_nncf(source, samples, target.grid, out, options)
    said = facts(target.backend)
    whole = {"fused": said.fused, "tables": said.tables}
    return quantize_onnx(source, samples, target.grid, out, options, measured, **whole)


def floats(source: Graph, measured: Any, options: Options) -> bytes:
    """The float file as it was quantized. measured: what `quantize` kept"""
    return bytes(_quantized(source, measured, options).SerializeToString())


def layers(source: Graph, measured: Any, options: Options) -> dict[str, frozenset[str]]:
    """What `keep_float` calls the layers (`keep_float.py`)."""
    return node_names(_quantized(source, measured, options))


def _quantized(source: Graph, measured: Any, options: Options) -> Any:
    """The float onnx.ModelProto that was quantized."""
    if options.engine == "nncf":
        from edgecv.methods.quantize.nncf import prepared

        return prepared(source)
    return measured[options.equalization].model


def sensitivities(
    source: Graph,
    quantized: Graph,
    samples: CalibrationData,
    how: Sensitivity,
    asked: TaskFidelity | None = None,
    progress: Progress = lambda *_: None,
) -> Problem:
    """What each layer and each activation costs (`sensitivity.py`, `hessian.py`).

    samples: (N, C, H, W) float32. asked: noise is what the task loses
    """
    import onnx

    from edgecv.backends.onnxruntime.tensors import with_shapes

    model = with_shapes(onnx.load_model(str(source.path)))
    made = onnx.load_model(str(quantized.path))
    if how == "hessian":
        from edgecv.methods.quantize.hessian import curvatures

        return curvatures(model, made, samples, kinds(source.outputs))
    from edgecv.methods.quantize import sensitivity

    ends = kinds(source.outputs)
    return sensitivity.sensitivities(model, made, samples, progress, ends, asked)


def attends(graph: Graph) -> bool:
    """Whether the graph holds an attention."""
    return attention.attends(graph.path)


def float_products(path: Path) -> list[str]:
    """Layers that the file itself leaves in float, by the names of their nodes."""
    import onnx

    graph = onnx.load_model(str(path)).graph
    integers = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return [n.name or n.output[0] for n in graph.node
            if n.op_type in PRODUCTS and not integers.issuperset(n.input[:2])]  # fmt: skip


def halve(graph: Graph, path: Path, compute: bool) -> dict[str, int]:
    """Write the graph with weights in fp16; its operators' counts. compute: and activations"""
    model = _computing(graph) if compute else _stored(graph)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return dict(sorted(Counter(n.op_type for n in model.graph.node).items()))


def _stored(graph: Graph) -> Any:
    """Initializers in fp16, a Cast behind each, which engines do once, when they load the file."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load_model(str(graph.path))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(as_half(name, values), f"{name}/fp16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}/fp16"], [name], f"{name}/unpack", to=1)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _computing(graph: Graph) -> Any:
    """ONNX Runtime's own conversion, between Cast nodes at the network's ends."""
    try:
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as e:
        raise missing(e.name or "onnxruntime", "compress", "quantize") from None
    from onnx import TensorProto, numpy_helper

    from edgecv.methods.export.onnx import strip

    model = onnx.load_model(str(graph.path))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            as_half(tensor.name, numpy_helper.to_array(tensor))
    made = convert_float_to_float16(model, keep_io_types=True)
    ONNXModel(made).topological_sort()  # it leaves the casts of the inputs at the end
    strip(made)
    onnx.checker.check_model(made, full_check=True)
    return made
