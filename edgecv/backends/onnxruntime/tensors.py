"""Running a float ONNX graph for what its tensors hold, one image at a time, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# An image (C, H, W) of a network that takes nothing else, or a feed of all its inputs.
Sample = np.ndarray | Mapping[str, np.ndarray]
Runner = Callable[[Sample], list[np.ndarray]]


def layer_inputs(
    model: Any, names: Sequence[str], samples: Iterable[Sample]
) -> Iterator[dict[str, np.ndarray]]:
    """Those activations (or the input) by name, one image after the other."""
    yield from map(watcher(model, names), samples)


def watcher(model: Any, names: Sequence[str]) -> Callable[[Sample], dict[str, np.ndarray]]:
    """A function from a sample to those activations (or the input) by name."""
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    kept = [n for n in dict.fromkeys(names) if n in known]
    run = _watched(model, [known[n] for n in kept]) if kept else lambda _: []
    return lambda image: {**_feed(model, image), **dict(zip(kept, run(image), strict=True))}


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
    zeros = {}
    for value in _sources(made):
        tensor = value.type.tensor_type
        numbers = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        zeros[value.name] = np.zeros([d.dim_value for d in tensor.shape.dim], numbers)
    values = _watched(made, [onnx.ValueInfoProto(name=n) for n in unknown])(zeros)
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
    """The float inputs' and activations' names, and a function from a sample to values."""
    import onnx

    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    names: list[str] = [
        n
        for node in model.graph.node
        for n in node.output
        if n in known and known[n].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    run = _watched(model, [known[n] for n in names])
    real = [v.name for v in _sources(model)
            if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]  # fmt: skip

    def values(sample: Sample) -> list[np.ndarray]:
        feed = _feed(model, sample)
        return [*(feed[n] for n in real), *run(sample)]

    return [*real, *names], values


def _watched(model: Any, outputs: Sequence[Any]) -> Runner:
    """A runner of the model that gives those tensors (ValueInfoProto) in place of its outputs."""
    import onnx

    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(outputs)
    return runner(every)


def runner(model: Any, optimised: bool = True) -> Runner:
    """One sample in, the graph's outputs out, on one thread. optimised: False computes node by
    node, quantized layers in float."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    taken = {i.name for i in session.get_inputs()}

    def run(sample: Sample) -> list[np.ndarray]:
        feed = {n: v for n, v in _feed(model, sample).items() if n in taken}
        found: Sequence[np.ndarray] = session.run(names, feed)
        return list(found)

    return run


def _feed(model: Any, sample: Sample) -> dict[str, np.ndarray]:
    if isinstance(sample, Mapping):
        return dict(sample)
    return {_sources(model)[0].name: np.ascontiguousarray(sample[None], dtype=np.float32)}


def _sources(model: Any) -> list[Any]:
    weights = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]
