"""Cutting an ONNX graph at its last feature map, for `edgecv.report.saliency`.

    image ── head ──▶ A ── tail ──▶ scores

A is the last tensor with the height and width of the last convolution through which every path
from the image to the scores leads: behind the ReLU and the residual sum, before any pooling.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import UnsupportedError, missing
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import CONVOLUTIONS

WHERE = "saliency"


def split(path: Path) -> tuple[Session, Session]:
    """(head, tail) as sessions. Raises UnsupportedError; MissingExtraError without onnx."""
    try:
        import onnx
    except ImportError:
        raise missing("onnx", "compress", WHERE) from None
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    if len(model.graph.input) != 1:
        raise UnsupportedError(WHERE, f"the graph has {len(model.graph.input)} inputs")
    feature = feature_map(model)
    scores = _scores(model)
    extractor = onnx.utils.Extractor(model)
    head = extractor.extract_model([model.graph.input[0].name], [feature])
    tail = soft(extractor.extract_model([feature], [scores]))
    _free_batch(tail)
    return _session(head), _session(tail)


def _session(model: Any) -> Session:
    return Session({"model.onnx": model.SerializeToString()})


def feature_map(model: Any) -> str:
    """The name of A. Raises UnsupportedError."""
    shapes = dict(_shapes(model))
    nodes = list(model.graph.node)
    spatial = [
        (i, shapes[n.output[0]])
        for i, n in enumerate(nodes)
        if n.op_type in CONVOLUTIONS and _has_pixels(shapes.get(n.output[0], ()))
    ]
    if not spatial:
        raise UnsupportedError(WHERE, "the graph has no convolution over more than one pixel")
    last, shape = spatial[-1]
    for i in range(len(nodes) - 1, last - 1, -1):
        for name in nodes[i].output:
            same = shapes.get(name, ())[2:] == shape[2:] and len(shapes.get(name, ())) == 4
            if same and _is_float(model, name, nodes[i]) and _everything_passes(model, name):
                return str(name)
    raise UnsupportedError(WHERE, "no feature map of the graph has every path leading through it")


def _shapes(model: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    for info in (*model.graph.value_info, *model.graph.output):
        yield info.name, tuple(d.dim_value for d in info.type.tensor_type.shape.dim)


def _has_pixels(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _is_float(model: Any, name: str, node: Any) -> bool:
    """A QuantizeLinear's integers are no feature map; the DequantizeLinear behind it is one."""
    import onnx

    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.value_info}
    return node.op_type != "QuantizeLinear" and kinds.get(name) == onnx.TensorProto.FLOAT


def _everything_passes(model: Any, name: str) -> bool:
    """Whether no path from the image to the output leads around this tensor."""
    made_by = Index(model.graph).makers
    image = model.graph.input[0].name
    todo, seen, reached = [model.graph.output[0].name], {name}, False
    while todo:
        tensor = todo.pop()
        if tensor == image:
            return False
        if tensor == name:
            reached = True
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in made_by:
            todo += made_by[tensor].input
    return reached


def _scores(model: Any) -> str:
    """The logits: what goes into the softmax, where the graph ends in one."""
    made_by = Index(model.graph).makers
    name = model.graph.output[0].name
    node = made_by.get(name)
    while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear", "Softmax"):
        name = node.input[0]
        node = made_by.get(name)
    return str(name)


def soft(tail: Any) -> Any:
    """The tail with activations clipped to their grids' ranges instead of rounded to the grids."""
    import onnx

    known = {t.name: onnx.numpy_helper.to_array(t) for t in tail.graph.initializer}
    readers = Index(tail.graph).readers
    for node in list(tail.graph.node):
        if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            raise UnsupportedError(WHERE, f"{node.op_type} behind the feature map has no slope")
        if node.op_type != "QuantizeLinear":
            continue
        if any(r.op_type != "DequantizeLinear" for r in readers.get(node.output[0], [])):
            raise UnsupportedError(WHERE, "integers behind the feature map have no slope")
        _clip(tail, node, known)
        for reader in readers.get(node.output[0], []):
            reader.op_type = "Identity"
            del reader.input[1:], reader.attribute[:]
    del tail.graph.value_info[:]
    return tail


def _clip(tail: Any, node: Any, known: dict[str, np.ndarray]) -> None:
    """Turn a QuantizeLinear into the clip to what its integers can hold."""
    import onnx

    scale = known[node.input[1]].astype(np.float64)
    zero = known[node.input[2]] if len(node.input) > 2 else np.zeros((), np.uint8)
    if scale.size != 1:
        raise UnsupportedError(WHERE, "activations behind the feature map have a scale per channel")
    limits = np.iinfo(zero.dtype)
    names = [f"{node.output[0]}_{end}" for end in ("least", "most")]
    for name, q in zip(names, (limits.min, limits.max), strict=True):
        value = np.float32((q - int(zero.reshape(-1)[0])) * float(scale.reshape(-1)[0]))
        tail.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    node.op_type = "Clip"
    del node.input[1:], node.attribute[:]
    node.input.extend(names)


def _free_batch(tail: Any) -> None:
    """Let the first dimension of what goes in and comes out be any number of images."""
    for info in (*tail.graph.input, *tail.graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "images"
