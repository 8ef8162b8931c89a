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
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import Session, quiet
from edgecv.errors import (
    ModelError,
    TargetError,
    UnsupportedError,
    missing,
)
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export._tflite_names import copy_names
from edgecv.methods.quantize import learned
from edgecv.methods.quantize._tflite_ends import ends_of, hold_weights, in_float, roomy, seams
from edgecv.methods.quantize._tflite_floats import said, wide, with_them
from edgecv.methods.quantize._tflite_grids import widened, without_far_ends
from edgecv.methods.quantize._tflite_integers import as_themselves, as_twins
from edgecv.methods.quantize._tflite_layers import known_as
from edgecv.methods.quantize._tflite_learned import put_tflite
from edgecv.methods.quantize._tflite_measured import Measured
from edgecv.methods.quantize._tflite_weights import LIMIT, settle
from edgecv.methods.quantize.calibration import check_samples, doubts
from edgecv.methods.quantize.keep_float import resolve
from edgecv.methods.quantize.layer_rounding import largest
from edgecv.methods.quantize.options import DEFAULT, Options, check
from edgecv.methods.quantize.ranges import Range
from edgecv.samples import CalibrationData
from edgecv.target import Grid

log = logging.getLogger(__name__)

IO = ("int8", "uint8", "float32")
KEPT = ("transposes", "notes", "own", "bounds", "sigmoid")  # of the float graph's facts


def quantize_tflite(
    graph: Graph,
    samples: CalibrationData,
    grid: Grid,
    io: str,
    out: Path,
    options: Options = DEFAULT,
    measured: dict[bool, Measured] | None = None,
) -> Graph:
    """Write out/model.tflite and out/graph.json: every tensor an integer.

    graph: a float32 .tflite. samples: float32 (N, H, W, C), normalised as the network expects.
    grid: per_channel and dense_per_channel choose the weights' scales; a grid that TensorFlow
    Lite's kernels do not compute (uint8 or symmetric activations, float bias) is refused.
    io, what the file's own input and output tensors are:
      "int8"    int8, with their scale and zero point; no QUANTIZE or DEQUANTIZE
      "uint8"   input uint8 and one QUANTIZE to int8, as Coral's libraries expect; output int8, or
                float32 where it joins several quantities
      "float32" QUANTIZE and DEQUANTIZE inside the file
    Classes and values come out as float32 unless io is "uint8" (`_tflite_ends.py`). Layers that
    options keep float stand between DEQUANTIZE and QUANTIZE, and so do operators that have no int8
    kernel, where io is not "uint8". measured: what the samples say of that graph, by
    options.equalization: taken from here and kept here, so that several choices share it.
    What is odd, and may be meant, is told in facts["warnings"].
    Same graph, samples, grid and options: same bytes.

    Raises DataError (samples), TargetError (grid; a layer kept float for the Edge TPU),
    UnsupportedError (an operator that stays float on the Edge TPU), StageError (an option that is
    not known), ModelError (a graph that is not float32, NaN on the samples).
    """
    check(options)
    _check(graph, samples, grid, io)
    floats = flatbuffer.read(graph.path)
    kept = resolve(known_as(floats), options.keep_float)
    if kept and io == "uint8":
        hint = "leave keep_float out: the Edge TPU computes in integers only"
        raise TargetError("quantize.keep_float", "io uint8 takes no float layer", hint)
    trained = learned.is_learned(graph)
    if trained:  # what was learned on a grid is neither equalized nor rounded anew
        options = replace(
            options, equalization=False, rounding="nearest", bias_correction=False,
            reconstruction="none", weight_bits=8,
        )  # fmt: skip
    known = {} if measured is None else measured
    if options.equalization not in known:
        content = graph.path.read_bytes()
        known[options.equalization] = Measured(content, samples, options.equalization, trained)
    seen = known[options.equalization]
    ranges = seen.ranges(options.calibration) | learned.ranges(graph)
    ends = ends_of(seen.model, graph.outputs, kept, integer=io == "uint8")
    for name, (low, high) in ({} if trained else seams(seen.model, graph.outputs, ends)).items():
        ranges[name] = max(low, seen.spans[name][0]), min(high, seen.spans[name][1])
    if io == "uint8":
        ranges = roomy(seen.model, graph.outputs, ranges)
    ranges = widened(seen.model, ranges)
    stays, spans = kept | ends.names, list[str]()
    if io != "uint8":
        own = wide(seen.model)
        spans = said(seen.model, own - stays)
        stays |= own | with_them(seen.model, own)
    model = _quantize(seen.content, ranges, grid, io, stays)
    if io != "uint8" and (left := set(_left_float(model, io, stays))):
        stays |= with_them(seen.model, left)
        model = _quantize(seen.content, ranges, grid, io, stays)
    scales = put_tflite(graph, model, seen.model, grid) if trained else {}
    moments = {} if trained else seen.moments
    raised = settle(model, seen.model, moments, options)
    in_float(model, ends)
    float_ends = hold_weights(
        model, seen.model, ends, moments, scales, options, grid.dense_per_channel
    )
    tuned = _reconstruct(model, seen, options)
    if io == "uint8":
        _take_uint8(model)
    alone = [*_told(_left_float(model, io, stays), io), *spans]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.tflite"
    without_far_ends(model)
    flatbuffer.tidy(model, *(tuple(s.name for s in side) for side in (graph.inputs, graph.outputs)))
    copy_names(model, floats)
    flatbuffer.write(model, path)
    session = Session({path.name: path.read_bytes()})
    facts = {
        "ops": flatbuffer.op_counts(model),
        "executed": session.executed(),
        "quantizer": "ai_edge_quantizer",
        "options": options.to_json(),
        "float_ends": float_ends,
        **tuned,
        "samples": len(samples),
        "raised_weight_scales": raised,
        "warnings": [*doubts(samples), *alone],
        **{k: v for k in KEPT if (v := graph.facts.get(k))},
        "versions": {p: version(p) for p in ("ai-edge-quantizer", "ai-edge-litert")},
    }
    outputs = graph.told(session.outputs)
    made = Graph(path, "tflite", "int8", session.inputs, outputs, facts)
    made.save_facts()
    return made


def _reconstruct(model: Any, seen: Measured, options: Options) -> dict[str, Any]:
    """What reconstruction made of it, where the options ask for it."""
    if options.reconstruction == "none":
        return {}
    from edgecv.methods.quantize._tflite_reconstruct import subject
    from edgecv.methods.quantize.reconstruction import check_count, reconstruct

    check_count(seen.samples)
    work = subject(seen.content, seen.model, model)
    outcome = reconstruct(work, seen.samples, largest(LIMIT, options))
    return {"reconstruction": outcome.to_json()}


def _check(graph: Graph, samples: CalibrationData, grid: Grid, io: str) -> None:
    if graph.format != "tflite" or graph.precision != "fp32":
        raise ModelError("quantize", f"takes a float .tflite, got {graph.precision} {graph.format}")
    if io not in IO:
        raise TargetError("quantize: io", f"{io!r} is not one of {', '.join(IO)}")
    if grid.activations != "int8" or grid.symmetric or not grid.quantize_bias or grid.reduce_range:
        hint = "activations: int8, symmetric: false, quantize_bias: true, reduce_range: false"
        raise TargetError("quantize: grid", "is not one that TensorFlow Lite computes on", hint)
    check_samples(samples, graph.inputs)


def _quantize(content: bytes, ranges: dict[str, Range], grid: Grid, io: str, kept: set[str]) -> Any:
    """The quantizer's own file for these ranges, as an editable model.

    content: the float .tflite. kept: layers that stay float, by their output tensor
    """
    try:
        with _silent():
            from ai_edge_quantizer import qtyping, quantizer
    except ModuleNotFoundError:
        raise missing("ai-edge-quantizer", "compress", "quantize") from None
    names = qtyping.TFLOperationName
    by = {True: qtyping.QuantGranularity.CHANNELWISE, False: qtyping.QuantGranularity.TENSORWISE}
    shown = flatbuffer.parse(content, "quantize")
    twins = as_twins(shown)
    work = quantizer.Quantizer(bytearray(flatbuffer.written(shown) if twins else content))
    work.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, by[grid.per_channel])
    work.add_static_config(".*", names.FULLY_CONNECTED, 8, 8, by[grid.dense_per_channel])
    for name in sorted(kept):
        scope = f"^{re.escape(name)};"  # an operator's scope is its outputs' names
        work.update_quantization_recipe(scope, names.ALL_SUPPORTED, algorithm_key="no_quantize")
    if io == "float32":
        for end in (names.INPUT, names.OUTPUT):
            work.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    # of the tensor's own rank: a constant that is concatenated takes its result's scale as it is
    ranks = {t.name.decode(): len(t.shape) for t in flatbuffer.graph_of(shown).tensors
             if t.shape is not None}  # fmt: skip
    statistics = {
        name: {
            key: np.full((1,) * max(1, ranks.get(name, 4)), end, "f4")
            for key, end in (("min", low), ("max", high))
        }
        for name, (low, high) in ranges.items()
    }
    try:
        with _silent():
            made = work.quantize(
                statistics, enable_progress_bar=False, enable_progress_report=False
            )
    except Exception as e:  # it raises whatever its numpy code raises
        log.debug("ai_edge_quantizer: %s", e)
        held = flatbuffer.op_counts(flatbuffer.parse(content, "quantize"))
        named = next((n for n in re.findall(r"[A-Z][A-Z0-9_]+", str(e)) if n in held), "")
        what = f"LiteRT's quantizer does not take {f'its {named}' if named else 'this network'}"
        hint = "keep that layer in float (quantize.keep_float), or ship fp32"
        raise UnsupportedError("quantize", what, hint) from e
    model = flatbuffer.parse(bytes(made.quantized_model), "quantize")
    as_themselves(model, twins)
    return model


def _take_uint8(model: Any) -> None:
    """uint8 inputs before the int8 ones, and the QUANTIZE between them (zero points 128 apart)."""
    graph, made = flatbuffer.graph_of(model), []
    code = flatbuffer.add_op(model, "QUANTIZE")
    for place, old in enumerate(map(int, graph.inputs)):
        inner = graph.tensors[old]
        if inner.type != flatbuffer.enum("TensorType", "INT8"):
            continue
        outer, grid = flatbuffer.new("TensorT"), flatbuffer.new("QuantizationParametersT")
        grid.scale = list(inner.quantization.scale)
        grid.zeroPoint = [int(inner.quantization.zeroPoint[0]) + 128]
        outer.shape, outer.type = list(inner.shape), flatbuffer.enum("TensorType", "UINT8")
        outer.buffer, outer.quantization, outer.hasRank = 0, grid, True
        graph.tensors.append(outer)
        op = flatbuffer.new("OperatorT")
        op.opcodeIndex = code
        op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "QuantizeOptions")
        op.builtinOptions = flatbuffer.new("QuantizeOptionsT")
        op.inputs, op.outputs = [len(graph.tensors) - 1], [old]
        made.append(op)
        graph.inputs = [*graph.inputs[:place], len(graph.tensors) - 1, *graph.inputs[place + 1 :]]
    graph.operators = [*made, *graph.operators]


def _left_float(model: Any, io: str, kept: set[str]) -> dict[str, str]:
    """Operators that stayed float unasked: their kinds by what they make. kept: what was asked for,
    and what stays with them.
    """
    graph, real = flatbuffer.graph_of(model), flatbuffer.enum("TensorType", "FLOAT32")
    ends = {int(t) for t in (*graph.inputs, *graph.outputs)} if io == "float32" else set()
    found = {}
    for op in graph.operators:
        outputs = [graph.tensors[t] for t in op.outputs if int(t) not in ends]
        asked = {t.name.decode() for t in outputs} & kept
        kind = flatbuffer.op_name(model, op)
        if kind != "DEQUANTIZE" and not asked and any(t.type == real for t in outputs):
            found[outputs[0].name.decode()] = kind
    return found


def _told(left: dict[str, str], io: str) -> list[str]:
    """What stayed float, a sentence for each kind of operator.

    Raises UnsupportedError naming one where io is "uint8": the Edge TPU has no place for it.
    """
    if left and io == "uint8":
        layer, kind = next(iter(left.items()))
        what = f"{kind} ({layer}) has no integer kernel, and the Edge TPU computes in integers only"
        hint = "ReLU, ReLU6, sigmoid, tanh, Hardswish and SiLU become integers; or take tflite"
        raise UnsupportedError("quantize", what, hint)
    return [
        f"{kind} (x{count}) has no int8 kernel and stays float, with conversions around it"
        for kind, count in sorted(Counter(left.values()).items())
    ]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Progress bars, warnings and C++ log lines of the quantizer go nowhere."""
    with warnings.catch_warnings(), quiet(), contextlib.redirect_stderr(streams.StringIO()):
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            yield
