"""What the quantizer must know of a float ONNX graph: activation ranges, and the shift that
rounding its weights causes. Both are measured one image at a time: memory holds the activations
of one image, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecv.errors import StageError

BINS = 2048
Range = tuple[float, float]
Choose = Callable[[np.ndarray, Range, bool], Range]
Runner = Callable[[np.ndarray], list[np.ndarray]]


def measure_ranges(
    model: Any, samples: np.ndarray, choose: Choose | None, symmetric: bool
) -> dict[str, Range]:
    """The range of the input and of every float activation over the samples, by tensor name.

    model:   onnx.ModelProto with inferred shapes
    choose:  choose(histogram, (lo, hi), symmetric) narrows a range; None keeps min and max
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
            row += _histogram(v, a, b)
    return {n: choose(c, r, symmetric) for n, c, r in zip(names, counts, ranges, strict=True)}


def percentile(histogram: np.ndarray, span: Range, symmetric: bool, kept: float = 0.9999) -> Range:
    """The range that holds that share of the values, half of the rest cut on each side."""
    lo, hi = span
    share = np.cumsum(histogram) / histogram.sum()
    edges = np.linspace(lo, hi, len(histogram) + 1)
    cut = (1 - kept) / 2
    first = int(np.searchsorted(share, cut, side="right"))
    last = int(np.searchsorted(share, 1 - cut)) + 1
    low, high = float(edges[first]), float(edges[min(last, len(histogram))])
    return _mirror(low, high) if symmetric else (low, high)


def mse(histogram: np.ndarray, span: Range, symmetric: bool) -> Range:
    """The shrunk range that minimises E[(x − q(x))²] over 256 levels.

    Nagel et al., "A White Paper on Neural Network Quantization" (2021), section 3.1.
    """
    lo, hi = _mirror(*span) if symmetric else (min(span[0], 0.0), max(span[1], 0.0))
    edges = np.linspace(*span, len(histogram) + 1)
    x = (edges[1:] + edges[:-1]) / 2
    shrinks = np.linspace(0.3, 1, 36)
    if symmetric:
        tries = [(lo * a, hi * a) for a in shrinks]
    else:
        tries = [(lo * a, hi * b) for a in (shrinks if lo < 0 else (1.0,)) for b in shrinks]
    best, found = np.inf, (lo, hi)
    for low, high in tries:
        step = max(high - low, 1e-12) / (254 if symmetric else 255)
        zero = np.round(-low / step)  # the grid holds 0 exactly
        q = np.clip(np.round(x / step), -zero, 255 - zero) * step
        loss = float(histogram @ (x - q) ** 2)
        if loss < best:
            best, found = loss, (float(low), float(high))
    return found


CALIBRATIONS: dict[str, Choose | None] = {"minmax": None, "percentile": percentile, "mse": mse}


def measure_shift(
    model: Any, errors: dict[str, np.ndarray], samples: np.ndarray
) -> dict[str, np.ndarray]:
    """E[layer(x, w − ŵ)] per output channel: what rounding a layer's weights adds to its mean.

    errors: w − ŵ (float32, the weight's shape) by the layer's output name
    Each layer gets a twin that reads the same input through the error of its weights, so one
    pass over the samples measures all of them.
    """
    import onnx
    from onnx import numpy_helper

    twins = onnx.ModelProto()
    twins.CopyFrom(model)
    del twins.graph.output[:]
    for node in model.graph.node:
        if not node.output or node.output[0] not in errors:
            continue
        name = node.output[0]
        twin = twins.graph.node.add()
        twin.CopyFrom(node)
        del twin.input[2:]
        twin.name = twin.output[0] = f"{name}/shift"
        twin.input[1] = f"{name}/error"
        twins.graph.initializer.append(numpy_helper.from_array(errors[name], twin.input[1]))
        twins.graph.output.add().CopyFrom(
            onnx.helper.make_tensor_value_info(twin.output[0], onnx.TensorProto.FLOAT, None)
        )
    names = [o.name.removesuffix("/shift") for o in twins.graph.output]
    run = _runner(twins)
    total = {n: np.zeros(1) for n in names}
    for image in samples:
        for name, v in zip(names, run(image), strict=True):
            total[name] = total[name] + v.mean(axis=(0, *range(2, v.ndim)), dtype=np.float64)
    return {n: (t / len(samples)).astype(np.float32) for n, t in total.items()}


def _mirror(lo: float, hi: float) -> Range:
    return -max(-lo, hi), max(-lo, hi)


def _histogram(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Counts in BINS equal bins (np.histogram is ten times slower on equal bins)."""
    scale = np.float32(BINS / max(hi - lo, 1e-12))
    index = ((values.ravel() - np.float32(lo)) * scale).astype(np.int32)
    return np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)


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
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(known[n] for n in names)
    run = _runner(every)
    return [_source(model), *names], lambda image: [image, *run(image)]


def _runner(model: Any) -> Runner:
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
