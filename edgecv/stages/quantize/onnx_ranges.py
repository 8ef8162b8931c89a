"""What a float ONNX graph holds on the samples: ranges, and the inputs of its layers.

Measured one image at a time: memory holds the activations of one image, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgecv.errors import StageError
from edgecv.stages.quantize.ranges import BINS, Choose, Range, histogram

Runner = Callable[[np.ndarray], list[np.ndarray]]


def measure_ranges(
    model: Any, samples: np.ndarray, choose: Choose | None, symmetric: bool
) -> dict[str, Range]:
    """The range of the input and of every float activation over the samples, by tensor name.

    model:   onnx.ModelProto with inferred shapes
    choose:  choose(histogram, (lo, hi), symmetric) narrows a range; None keeps min and max
    The network's outputs keep min and max: their rare extremes are the answers, and two classes
    cut to one value cannot be told apart.
    Raises StageError: an activation is NaN or infinite.
    """
    names, run = _activations(model)
    lo, hi = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in map(run, samples):
        # minimum() carries NaN through, so that one bad value is seen at the end
        lo = np.minimum(lo, [v.min() for v in values])
        hi = np.maximum(hi, [v.max() for v in values])
    bad = ~(np.isfinite(lo) & np.isfinite(hi))
    if bad.any():
        name = names[int(bad.argmax())]
        raise StageError(f"quantize: tensor {name!r}", "is NaN or infinite on the samples")
    ranges = [(float(a), float(b)) for a, b in zip(lo, hi, strict=True)]
    if choose is None:
        return dict(zip(names, ranges, strict=True))
    counts = np.zeros((len(names), BINS), np.int64)
    for values in map(run, samples):
        for row, v, (a, b) in zip(counts, values, ranges, strict=True):
            row += histogram(v, a, b)
    whole = {o.name for o in model.graph.output}
    return {
        n: r if n in whole else choose(c, r, symmetric)
        for n, c, r in zip(names, counts, ranges, strict=True)
    }


def layer_inputs(
    model: Any, names: Sequence[str], samples: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Those activations (or the input) by name, one image after the other."""
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    kept = [n for n in dict.fromkeys(names) if n in known]
    run = _watched(model, [known[n] for n in kept]) if kept else lambda _: []
    for image in samples:
        yield {_source(model): image[None], **dict(zip(kept, run(image), strict=True))}


def _activations(model: Any) -> tuple[list[str], Runner]:
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
    return [_source(model), *names], lambda image: [image, *run(image)]


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
