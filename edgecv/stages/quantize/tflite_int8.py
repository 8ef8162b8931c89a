"""Full-integer .tflite: q = clip(round(x / s) + z, -128, 127), weights s = max|w| / 127, z = 0.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018); the grid is the TensorFlow Lite 8-bit quantization specification: int8
activations per tensor, int8 weights per output channel, int32 bias of scale s_x * s_w.

The ranges are measured here (running the float graph on samples) and the integers are made by
`ai_edge_quantizer`, which by default averages the ranges over batches and so clips; ours are chosen
as the options say (`ranges.py`). Afterwards its weights are rounded anew and its biases put right
(`_tflite_weights.py`).
"""

from __future__ import annotations

import contextlib
import io as streams
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.backends.tflite.run import Session, engine, quiet
from edgecv.errors import DataError, EngineError, ModelError, TargetError, UnsupportedError, missing
from edgecv.graph import Graph
from edgecv.stages.export._tflite_names import copy_names
from edgecv.stages.quantize import learned
from edgecv.stages.quantize._tflite_equalize import equalize
from edgecv.stages.quantize._tflite_weights import measure_moments, settle
from edgecv.stages.quantize.keep_float import resolve, tflite_layers
from edgecv.stages.quantize.options import DEFAULT, Options, check
from edgecv.stages.quantize.ranges import BINS, CALIBRATIONS, Choose, histogram
from edgecv.target import Grid

IO = ("int8", "uint8", "float32")


@dataclass(frozen=True)
class Activation:
    """What a tensor of the float graph held over the samples: its extremes."""

    low: float
    high: float


def quantize_tflite(
    graph: Graph,
    samples: np.ndarray,
    grid: Grid,
    io: str,
    out: Path,
    options: Options = DEFAULT,
) -> Graph:
    """Write out/model.tflite and out/graph.json: every tensor an integer.

    graph: a float32 .tflite. samples: float32 (N, H, W, C), normalised as the network expects.
    grid: per_channel and dense_per_channel choose the weights' scales; a grid that TensorFlow
    Lite's kernels do not compute (uint8 or symmetric activations, float bias) is refused.
    io, what the file's own input and output tensors are:
      "int8"    both int8, with their scale and zero point; no QUANTIZE or DEQUANTIZE
      "uint8"   input uint8 and one QUANTIZE to int8, as Coral's libraries expect; output int8
      "float32" QUANTIZE and DEQUANTIZE inside the file
    Layers that options keep float stand between DEQUANTIZE and QUANTIZE.
    Same graph, samples, grid and options: same bytes.

    Raises DataError (samples), TargetError (grid; a layer kept float for the Edge TPU),
    UnsupportedError (an operator that stays float unasked), StageError (an option that is not
    known), ModelError (a graph that is not float32).
    """
    check(options)
    _check(graph, samples, grid, io)
    floats = flatbuffer.read(graph.path)
    kept = resolve(tflite_layers(floats), options.keep_float)
    if kept and io == "uint8":
        hint = "leave keep_float out: the Edge TPU computes in integers only"
        raise TargetError("quantize.keep_float", "io uint8 takes no float layer", hint)
    trained = learned.is_learned(graph)
    if trained:  # what was learned on a grid is neither equalized nor rounded anew
        options = replace(
            options, equalization=False, rounding="nearest", bias_correction=False, weight_bits=8
        )
    with tempfile.TemporaryDirectory() as room:
        if options.equalization:
            equalize(floats, _play(graph, samples))
            graph = replace(graph, path=Path(room) / graph.path.name)
            flatbuffer.write(floats, graph.path)
        seen = calibrate(graph, samples)
        choose = CALIBRATIONS[options.calibration]
        ranges = _narrowed(graph, samples, seen, choose) if choose else seen
        for name, (low, high) in learned.ranges(graph).items():
            ranges[name] = replace(ranges[name], low=low, high=high)
        model = _quantize(graph, ranges, grid, io, kept)
        moments = {} if trained else measure_moments(floats, _play(graph, samples), len(samples))
    if trained:
        learned.put_tflite(graph, model, floats, grid)
    raised = settle(model, floats, moments, options)
    if io == "uint8":
        _take_uint8(model)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.tflite"
    flatbuffer.tidy(model, *(tuple(s.name for s in side) for side in (graph.inputs, graph.outputs)))
    copy_names(model, floats)
    flatbuffer.write(model, path)
    session = Session({path.name: path.read_bytes()})
    _check_integer(model, io, kept)
    facts = {
        "ops": flatbuffer.op_counts(model),
        "executed": session.executed(),
        "quantizer": "ai_edge_quantizer",
        "options": options.to_json(),
        "samples": len(samples),
        "raised_weight_scales": raised,
        "versions": {p: version(p) for p in ("ai-edge-quantizer", "ai-edge-litert")},
    }
    made = Graph(path, "tflite", "int8", session.inputs, session.outputs, facts)
    made.save_facts()
    return made


def calibrate(graph: Graph, samples: np.ndarray) -> dict[str, Activation]:
    """What every activation holds over the samples (N, H, W, C), by tensor name.

    Runs the float graph one sample at a time on one thread. Raises ModelError where a tensor
    becomes NaN or infinite.
    """
    main = flatbuffer.graph_of(flatbuffer.read(graph.path))
    real = flatbuffer.enum("TensorType", "FLOAT32")
    every = [*main.inputs, *(t for op in main.operators for t in op.outputs)]
    watched = [int(t) for t in every if main.tensors[t].type == real]
    seen: dict[str, Activation] = {}
    for value_of in _play(graph, samples):
        for t in watched:
            name, value = main.tensors[t].name.decode(), value_of(t)
            low, high = float(value.min()), float(value.max())
            if not np.isfinite([low, high]).all():
                what = f"tensor {name} becomes NaN or infinite on the samples"
                hint = "is it max pooling with padding? put it after a ReLU: int8 has no -inf"
                raise ModelError("quantize", what, hint if "padv2" in name else "")
            old = seen.get(name, Activation(low, high))
            seen[name] = Activation(min(low, old.low), max(high, old.high))
    return seen


def _narrowed(
    graph: Graph, samples: np.ndarray, seen: dict[str, Activation], choose: Choose
) -> dict[str, Activation]:
    """The ranges that `choose` finds, but the network's outputs keep their extremes: rare large
    values are its answers, and two classes cut to one value cannot be told apart.
    """
    main = flatbuffer.graph_of(flatbuffer.read(graph.path))
    whole = {int(t) for t in main.outputs}
    places = {t.name.decode(): i for i, t in enumerate(main.tensors) if i not in whole}
    narrow = {name: a for name, a in seen.items() if name in places}
    counts = {name: np.zeros(BINS, np.int64) for name in narrow}
    for value_of in _play(graph, samples):
        for name, a in narrow.items():
            counts[name] += histogram(value_of(places[name]), a.low, a.high)
    found = {n: choose(counts[n], (a.low, a.high), False) for n, a in narrow.items()}
    return seen | {n: replace(narrow[n], low=lo, high=hi) for n, (lo, hi) in found.items()}


def _play(graph: Graph, samples: np.ndarray) -> Iterator[Callable[[int], np.ndarray]]:
    """Run one sample after the other; each time, a function from a tensor's index to its value."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # "preserve_all_tensors is for debugging": it is
        net = engine().Interpreter(
            model_path=str(graph.path), num_threads=1, experimental_preserve_all_tensors=True
        )
        net.allocate_tensors()
    entry = net.get_input_details()[0]["index"]
    for sample in samples:
        net.set_tensor(entry, sample[None])
        net.invoke()
        yield net.get_tensor


def _check(graph: Graph, samples: np.ndarray, grid: Grid, io: str) -> None:
    if graph.format != "tflite" or graph.precision != "fp32":
        raise ModelError("quantize", f"takes a float .tflite, got {graph.precision} {graph.format}")
    if io not in IO:
        raise TargetError("quantize: io", f"{io!r} is not one of {', '.join(IO)}")
    if grid.activations != "int8" or grid.symmetric or not grid.quantize_bias or grid.reduce_range:
        hint = "activations: int8, symmetric: false, quantize_bias: true, reduce_range: false"
        raise TargetError("quantize: grid", "is not one that TensorFlow Lite computes on", hint)
    shape = graph.inputs[0].shape
    samples = np.asanyarray(samples)
    if samples.dtype != np.float32 or samples.ndim != 4 or samples.shape[1:] != shape[1:]:
        what = f"are {samples.dtype} {samples.shape}, the network takes float32 (N, *{shape[1:]})"
        raise DataError("quantize: samples", what)
    if len(samples) == 0:
        raise DataError("quantize: samples", "are empty", "calibrate on 100 images or so")
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=(1, 2, 3)))
    if len(bad):
        raise DataError("quantize: samples", f"sample {bad[0]} holds NaN or infinity")


def _quantize(
    graph: Graph, seen: dict[str, Activation], grid: Grid, io: str, kept: set[str]
) -> Any:
    """The quantizer's own file for these ranges, as an editable model.

    kept: layers that stay float, by their output tensor
    """
    try:
        with _silent():
            from ai_edge_quantizer import qtyping, quantizer
    except ModuleNotFoundError:
        raise missing("ai-edge-quantizer", "compress", "quantize") from None
    names = qtyping.TFLOperationName
    by = {True: qtyping.QuantGranularity.CHANNELWISE, False: qtyping.QuantGranularity.TENSORWISE}
    work = quantizer.Quantizer(str(graph.path))
    work.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, by[grid.per_channel])
    work.add_static_config(".*", names.FULLY_CONNECTED, 8, 8, by[grid.dense_per_channel])
    for name in sorted(kept):
        scope = f"^{re.escape(name)};"  # an operator's scope is its outputs' names
        work.update_quantization_recipe(scope, names.ALL_SUPPORTED, algorithm_key="no_quantize")
    if io == "float32":
        for end in (names.INPUT, names.OUTPUT):
            work.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    statistics = {
        name: {
            "min": np.full((1, 1, 1, 1), a.low, "f4"),
            "max": np.full((1, 1, 1, 1), a.high, "f4"),
        }
        for name, a in seen.items()
    }
    try:
        with _silent():
            made = work.quantize(
                statistics, enable_progress_bar=False, enable_progress_report=False
            )
    except Exception as e:
        raise EngineError("quantize: ai_edge_quantizer", " ".join(str(e).split())[:400]) from e
    return flatbuffer.parse(bytes(made.quantized_model), "quantize")


def _take_uint8(model: Any) -> None:
    """A uint8 input before the int8 one, and the QUANTIZE between them (zero points 128 apart)."""
    graph = flatbuffer.graph_of(model)
    (old,) = graph.inputs
    inner = graph.tensors[old]
    outer, grid = flatbuffer.new("TensorT"), flatbuffer.new("QuantizationParametersT")
    grid.scale = list(inner.quantization.scale)
    grid.zeroPoint = [int(inner.quantization.zeroPoint[0]) + 128]
    outer.shape, outer.type = list(inner.shape), flatbuffer.enum("TensorType", "UINT8")
    outer.buffer, outer.quantization, outer.hasRank = 0, grid, True
    graph.tensors.append(outer)
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, "QUANTIZE")
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "QuantizeOptions")
    op.builtinOptions = flatbuffer.new("QuantizeOptionsT")
    op.inputs, op.outputs = [len(graph.tensors) - 1], [int(old)]
    graph.operators.insert(0, op)
    graph.inputs = [len(graph.tensors) - 1]


def _check_integer(model: Any, io: str, kept: set[str]) -> None:
    """No float tensor is left but the ends and layers asked for.

    Raises UnsupportedError naming the op.
    """
    graph, real = flatbuffer.graph_of(model), flatbuffer.enum("TensorType", "FLOAT32")
    ends = {int(t) for t in (*graph.inputs, *graph.outputs)} if io == "float32" else set()
    for op in graph.operators:
        if any(graph.tensors[t].type == real and int(t) not in ends for t in op.outputs):
            name = flatbuffer.op_name(model, op)
            if name != "DEQUANTIZE" and not kept:
                hint = "ReLU, ReLU6 fused with a layer, Hardswish and SiLU become integers"
                raise UnsupportedError("quantize", f"{name} stays float", hint)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Progress bars, warnings and C++ log lines of the quantizer go nowhere."""
    with warnings.catch_warnings(), quiet(), contextlib.redirect_stderr(streams.StringIO()):
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            yield
