"""ONNX float → ONNX int8 (Q/DQ nodes), by ONNX Runtime's own quantizer.

q = clip(round(x / s) + z),  s = (hi − lo) / 255,  z = round(−lo / s);  b' = b + E[(w − ŵ) * x]

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018); the bias correction b' is Nagel et al., "Data-Free Quantization through
Weight Equalization and Bias Correction" (ICCV 2019), measured on the samples. Weights are
symmetric int8, one scale per output channel where the grid says so, and rounded by what their
inputs look like (`rounding.py`); activations take the grid's type.

Pitfalls: s8 activations do not fuse in ONNX Runtime on x86; its calibrators keep every
activation of every image before they reduce, so ranges are measured here; its default op list
has the order of a set, which changes between processes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import with_shapes
from edgecv.errors import EdgecvError, EngineError, ModelError, missing, one_line
from edgecv.graph import Graph
from edgecv.graphs.onnx.canonical.pools import counted_pads_apart
from edgecv.graphs.onnx.draft import Draft
from edgecv.graphs.onnx.geometry import groups
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import DENSE, FORWARD
from edgecv.graphs.onnx.names import node_names
from edgecv.methods.export.onnx import strip
from edgecv.methods.quantize import learned, onnx_learned, onnx_tables
from edgecv.methods.quantize.calibration import check_samples, doubts
from edgecv.methods.quantize.keep_float import free_outputs, hold_float, resolve
from edgecv.methods.quantize.layer_rounding import FULL, SEVEN_BITS, largest
from edgecv.methods.quantize.onnx_even import evened
from edgecv.methods.quantize.onnx_fused import (
    computed_whole,
    free_products,
    joins,
    names,
    opened_up,
    tail,
    unbounded,
)
from edgecv.methods.quantize.onnx_measured import Measured
from edgecv.methods.quantize.onnx_quantized import saved
from edgecv.methods.quantize.onnx_weights import fit, own_biases, rows_and_pairs, settle
from edgecv.methods.quantize.options import DEFAULT, Options, check
from edgecv.methods.quantize.ranges import Range, opened
from edgecv.samples import CalibrationData
from edgecv.target import Grid

# Operators that compute nothing of their own.
_MOVES = ("Constant", "Flatten", "Identity", "Shape", "Cast", "Dropout")


def quantize_onnx(
    graph: Graph,
    samples: CalibrationData,
    grid: Grid,
    out: Path,
    options: Options = DEFAULT,
    measured: dict[bool, Measured] | None = None,
    fused: Collection[str] = (),
    tables: Collection[str] = (),
) -> Graph:
    """Write out/model.onnx with Q/DQ nodes on the target's grid; the same bytes every time.

    graph:    a float ONNX graph with one input
    samples:  (N, C, H, W) float32, normalised as the network expects; a few hundred at most
    measured: what the samples say of that graph, by options.equalization: taken from here and kept
              here, so that several choices of the options share it
    fused:    activations that the engine computes with the layer in front of them (`Facts.fused`)
    tables:   those that it looks up by channel, in place of `fused` (`Facts.tables`)
    What is odd, and may be meant, is told in facts["warnings"].
    Raises DataError (samples: none, wrong shape, NaN, all the same), ModelError (not a float ONNX
    graph, nothing to quantize), StageError (an option that is not known, NaN activations),
    EngineError (the quantizer failed).
    """
    onnx = _onnx()
    if graph.format != "onnx" or graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision} {graph.format}, not fp32 onnx")
    check(options)
    check_samples(samples, graph.inputs)
    model = onnx.load_model(str(graph.path))
    if grid.activations == "uint8" and not graph.facts.get("one_bit"):
        counted_pads_apart(Draft(model, graph.path.name))
    model = with_shapes(model)
    try:
        limit = SEVEN_BITS if grid.reduce_range else FULL
        overrides = onnx_learned.overrides(graph, grid, rows_and_pairs(model))
        if overrides:  # what was learned on a grid is neither equalized nor rounded anew
            options = replace(options, equalization=False, reconstruction="none")
        known = {} if measured is None else measured
        if options.equalization not in known:
            even = model if overrides else with_shapes(evened(model, samples, fused or tables))
            known[options.equalization] = Measured(even, samples, options.equalization)
        seen = known[options.equalization]
        model = seen.model
        kept = resolve(_known_as(model), options.keep_float) if options.keep_float else set()
        ranges = seen.ranges(options.calibration, grid.symmetric) | learned.ranges(graph)
        ranges = {name: opened(span) for name, span in ranges.items()}
        behind, whole = _untrained(tail(model), graph), []
        if fused and not overrides:
            whole = [*computed_whole(model, fused), *behind]
        elif joins(behind):
            kept |= names([*behind, *unbounded(model, behind)])
        looked_up = [] if overrides else onnx_tables.looked_up(model, tables, kept)
        floats = kept | names(whole) | {n.name for one in looked_up for n in one.nodes}
        quantized = _quantize(model, ranges, grid, floats, overrides)
        opened_up(quantized, whole)
        onnx_tables.by_channel(quantized, looked_up, seen.channels)
        if not overrides:
            settle(model, quantized, seen.moments, limit, options)
        tuned = _reconstruct(model, quantized, samples, limit, options)
        hold_float(quantized, kept)
        if not overrides:  # trained with rounded outputs, it keeps them
            if fused:
                free_products(quantized)
            free_outputs(quantized)
        strip(quantized)
        onnx.checker.check_model(quantized, full_check=True)
    except EdgecvError:
        raise
    except Exception as e:
        raise EngineError("quantize", f"ONNX Runtime's quantizer: {one_line(e)}") from None
    facts = {
        "quantizer": "onnxruntime",
        "options": options.to_json(),
        **tuned,
        "samples": len(samples),
        "warnings": [
            *doubts(samples),
            *(_without_kernel(model, floats - kept) if _multiplying(model) is None else []),
        ],
        "grid": grid.model_dump(),
    }
    return saved(graph, quantized, out, facts)


def _untrained(nodes: list[Any], graph: Graph) -> list[Any]:
    """The nodes; none where a range of one was learned: it keeps what it was trained with."""
    known = learned.ranges(graph)
    return [] if any(node.output[0] in known for node in nodes) else nodes


def _known_as(model: Any) -> dict[str, frozenset[str]]:
    """What `keep_float` calls the layers: as the float file does, and as the quantized one does,
    whose layers have biases of their own and may be called otherwise for it."""
    named, own = node_names(model), node_names(own_biases(model))
    return {key: names | own.get(key, frozenset()) for key, names in named.items()}


def _quantize(
    model: Any,
    ranges: dict[str, Range],
    grid: Grid,
    kept: set[str],
    overrides: dict[str, Any] | None = None,
) -> Any:
    """The Q/DQ graph as an onnx.ModelProto; the model given is not changed.

    kept: names of nodes that stay float. overrides: scales of weights, as the quantizer takes them
    """
    onnx = _onnx()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {
        name: TensorData(lowest=np.float32(lo), highest=np.float32(hi))
        for name, (lo, hi) in ranges.items()
    }
    chosen = _multiplying(copy)
    if chosen == []:
        hint = "it ships as it is: leave the quantize step out"
        raise ModelError("quantize", "every layer that multiplies has one bit already", hint)
    per_tensor = set() if grid.dense_per_channel else _dense_weights(model)
    per_tensor |= _grouped_transposed(model)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer logs its advice on the root logger
    try:
        quantizer = QDQQuantizer(
            copy,
            per_channel=grid.per_channel,
            reduce_range=grid.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=getattr(QuantType, {"uint8": "QUInt8"}.get(grid.activations, "QInt8")),
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=chosen or [],
            nodes_to_exclude=sorted(
                kept | _whole_norms(copy) | (_left_float(copy) if grid.symmetric else set())
            ),
            op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry}),
            extra_options={
                "ActivationSymmetric": grid.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": grid.quantize_bias,
                "AddQDQPairToWeight": False,
                "TensorQuantOverrides": {
                    name: [{"quant_type": QuantType.QInt8, "symmetric": True}]
                    for name in per_tensor
                }
                | (overrides or {}),
            },
        )
        quantizer.quantize_model()
    finally:
        root.setLevel(level)
    quantizer.model.topological_sort()
    if chosen:
        _float_readers(quantizer.model.model, chosen)
    return quantizer.model.model


def _multiplying(model: Any) -> list[str] | None:
    """Where layers of one bit count, what else multiplies, and its clipping; None is everything:
    between layers of one bit, floats are added, and would be converted to and fro for nothing."""
    from edgecv.binary.countable import countable

    bits = countable(model)
    if not bits:
        return None
    for node in model.graph.node:  # the quantizer chooses by name
        node.name = node.name or node.output[0]
    found = [n for n in model.graph.node if n.op_type in FORWARD and n.output[0] not in bits]
    made = {n.output[0] for n in found}
    clips = [n for n in model.graph.node if n.op_type in ("Relu", "Clip") and n.input[0] in made]
    return [n.name for n in (*found, *clips)]


def _float_readers(quantized: Any, chosen: list[str]) -> None:
    """Give what was not chosen the floats as they were, where something made floats; in place."""
    graph = quantized.graph
    makers = Index(graph).makers
    names = {*chosen}
    for node in graph.node:
        if node.name in names or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for i, name in enumerate(node.input):
            unpack = makers.get(name)
            pack = makers.get(unpack.input[0]) if unpack is not None else None
            if unpack is None or pack is None or unpack.op_type != "DequantizeLinear":
                continue
            source = makers.get(pack.input[0])
            if source is not None and source.name not in names:
                node.input[i] = pack.input[0]


def _reconstruct(
    model: Any, quantized: Any, samples: CalibrationData, limit: int, options: Options
) -> dict[str, Any]:
    """What reconstruction made of it, where the options ask for it."""
    if options.reconstruction == "none":
        return {}
    from edgecv.methods.quantize.onnx_reconstruct import subject
    from edgecv.methods.quantize.reconstruction import check_count, reconstruct

    check_count(samples)
    most = largest(FULL, options)
    outcome = reconstruct(subject(model, quantized), samples, most)
    if limit < most:
        fit(model, quantized)
    return {"reconstruction": outcome.to_json()}


def _left_float(model: Any) -> set[str]:
    """Elementwise nodes with a constant operand, named: TensorRT takes no quantized constant
    there ("Quantized constant is only allowed before DQ").
    """
    held = {t.name for t in model.graph.initializer}
    return {
        node.name
        for node in model.graph.node
        if node.op_type in ("Add", "Sub", "Mul", "Div") and held & set(node.input)
    }


def _whole_norms(model: Any) -> set[str]:
    """LayerNormalization over several axes, named: ONNX Runtime's quantizer fails at them."""
    ranks = {t.name: len(t.dims) for t in model.graph.initializer}
    found = [n for n in model.graph.node if n.op_type == "LayerNormalization"]
    found = [n for n in found if any(ranks.get(name, 0) > 1 for name in n.input[1:])]
    for node in found:  # the quantizer leaves out by name
        node.name = node.name or node.output[0]
    return {node.name for node in found}


def _dense_weights(model: Any) -> set[str]:
    """Names of the weights of fully connected layers."""
    held = {t.name for t in model.graph.initializer}
    return {n.input[1] for n in model.graph.node if n.op_type in DENSE} & held


def _grouped_transposed(model: Any) -> set[str]:
    """Weights (C, O / groups, kh, kw) of transposed convolutions in groups: the quantizer takes
    its scales along the second axis, which is not the output channel there."""
    return {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "ConvTranspose" and groups(node) > 1
    }


def _without_kernel(model: Any, joined: Collection[str]) -> list[str]:
    """Operators that ONNX Runtime's quantizer has no integer form of, a sentence each.

    joined: names of nodes that the engine computes with others
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {*QLinearOpsRegistry, *QDQRegistry, *_MOVES}
    left = [n for n in model.graph.node if n.op_type not in known and n.name not in joined]
    ops = Counter(n.op_type for n in left)
    if whole := len(_whole_norms(model)):
        ops["LayerNormalization over several axes"] = whole
    return [
        f"{op} (x{count}) has no int8 kernel and stays float, with conversions around it"
        for op, count in sorted(ops.items())
    ]


def _onnx() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401 - the quantizer is part of it
    except ImportError as e:
        raise missing(e.name or "onnx", "compress", "quantize") from None
    return onnx
