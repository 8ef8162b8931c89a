"""One quantization of a float graph with given knobs, compared with the float graph."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from edgecv.graph import Graph
from edgecv.parity import Parity, Tolerance, check
from edgecv.replay import calibration_sample, graph_outputs, held_back
from edgecv.stages.base import Context
from edgecv.stages.quantize.learned import notes
from edgecv.stages.quantize.options import Options

log = logging.getLogger(__name__)

HELD_BACK = 256
NONE = Tolerance(-math.inf, 0.0)


def quantized(
    source: Graph,
    options: Options,
    context: Context,
    out: Path,
    samples: int,
    tolerance: Tolerance = NONE,
    tell: bool = True,
) -> tuple[Graph, Parity]:
    """The graph in out/ on the grid of context.target, and its fidelity on images held back.

    source: the float graph of the target's format. samples: calibration images, from data.train
    tell: log what is doubtful about them
    Raises ParityError beyond the tolerance, and what the quantizers raise.
    """
    target = context.target
    assert target is not None
    images = context.images("train").pixels
    spec = source.inputs[0]
    float_input = replace(context.preprocess, layout=spec.layout, dtype="float32")
    calibration = float_input.normalise(calibration_sample(images, samples))
    if target.graph == "onnx":
        from edgecv.stages.quantize.onnx_qdq import quantize_onnx

        graph = quantize_onnx(source, calibration, target.grid, out, options)
    else:
        from edgecv.stages.quantize.tflite_int8 import quantize_tflite

        graph = quantize_tflite(source, calibration, target.grid, target.io, out, options)
    clipped = notes(source)
    if clipped:  # trained to be clipped hard, which the float graph does not do: told, not judged
        tolerance = NONE
    unseen = held_back(images, samples, HELD_BACK)
    parity = check(
        f"quantize {context.where}",
        graph_outputs(source, unseen, context.preprocess),
        graph_outputs(graph, unseen, context.preprocess),
        tolerance,
    )
    graph.facts["parity"] = parity.to_json()
    graph.facts["notes"] = clipped
    if tell:
        for note in (*graph.facts["warnings"], *graph.facts["notes"]):
            log.warning("%s: %s", context.where, note)
    graph.save_facts()
    return graph, parity
