"""Running a float ONNX graph for what its tensors hold, one image at a time, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Runner = Callable[[np.ndarray], list[np.ndarray]]


def layer_inputs(
    model: Any, names: Sequence[str], samples: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Those activations (or the input) by name, one image after the other."""
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    kept = [n for n in dict.fromkeys(names) if n in known]
    run = _watched(model, [known[n] for n in kept]) if kept else lambda _: []
    for image in samples:
        yield {_source(model): image[None], **dict(zip(kept, run(image), strict=True))}


def with_shapes(model: Any) -> Any:
    """A copy that says type and shape of every tensor: inferred, and learned from one run on zeros
    where inference stops (operators of another domain, sizes that are computed)."""
    import onnx

    made = onnx.shape_inference.infer_shapes(model)
    known = {v.name: v for v in (*made.graph.value_info, *made.graph.output)}
    unknown = [
        n for node in made.graph.node for n in node.output if n and not _static(known.get(n))
    ]
    if not unknown:
        return made
    shape = [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim]
    values = _watched(made, [onnx.ValueInfoProto(name=n) for n in unknown])(np.zeros(shape[1:]))
    stale = {*unknown}
    kept = [v for v in made.graph.value_info if v.name not in stale]
    for name, value in zip(unknown, values, strict=True):
        if isinstance(value, np.ndarray):
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            kept.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    copies = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
    del made.graph.value_info[:]
    made.graph.value_info.extend(copies)
    return made


def _static(value: Any) -> bool:
    if value is None or not value.type.tensor_type.HasField("shape"):
        return False
    return all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)


def activations(model: Any) -> tuple[list[str], Runner]:
    """The input's and the float activations' names, and a function from an image to values."""
    import onnx

    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    names: list[str] = [
        n
        for node in model.graph.node
        for n in node.output
        if n in known and known[n].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    run = _watched(model, [known[n] for n in names])
    return [_source(model), *names], lambda image: [image[None], *run(image)]


def _watched(model: Any, outputs: Sequence[Any]) -> Runner:
    """A runner of the model that gives those tensors (ValueInfoProto) in place of its outputs."""
    import onnx

    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(outputs)
    return runner(every)


def runner(model: Any) -> Runner:
    """One image (C, H, W) float32 in, the graph's outputs out, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source, names = _source(model), [o.name for o in session.get_outputs()]

    def run(image: np.ndarray) -> list[np.ndarray]:
        x = np.ascontiguousarray(image[None], dtype=np.float32)
        found: Sequence[np.ndarray] = session.run(names, {source: x})
        return list(found)

    return run


def _source(model: Any) -> str:
    weights = {t.name for t in model.graph.initializer}
    return next(i.name for i in model.graph.input if i.name not in weights)
