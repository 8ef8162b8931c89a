"""q = clip(round(x / s) + z), x ≈ s (q - z): weights and activations become 8-bit integers.

Post-training: s and z come from the ranges seen on calibration images (Jacob et al., CVPR 2018).
Every engine gets the grid it runs fast and exactly, taken from the target's profile: u8 activations
and per-channel s8 weights on x86, symmetric s8 for TensorRT, full-integer for TFLite.

Pitfalls: calibration images must look like the ones on the device; a range set by one outlier costs
bits everywhere. The result's outputs are compared with the float graph's on images that were not
used for calibration.

onnx_qdq.py and tflite_int8.py hold the two quantizers.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Literal

from pydantic import Field

from edgecv.stages.base import Context, Stage
from edgecv.target import Target

log = logging.getLogger(__name__)


class Quantize(Stage):
    """Post-training quantization on the target's own integer grid."""

    word: ClassVar[str] = "quantize"
    produces: ClassVar[Literal["model", "graph"]] = "graph"
    per_target: ClassVar[bool] = True
    compresses: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train",)
    sources: ClassVar[tuple[str, ...]] = (
        "edgecv.parity",
        "edgecv.replay",
        "edgecv.stages.export._tflite_names",
    )

    precision: Literal["int8"] = "int8"
    samples: int = Field(default=256, ge=1, description="calibration images, from data.train")
    min_sqnr_db: float = Field(default=6.0, description="fail below this signal-to-noise ratio")
    min_agreement: float = Field(
        default=0.8, ge=0, le=1, description="fail below this top-1 agreement with the float graph"
    )

    def target_key(self, target: Target) -> dict[str, Any]:
        """What of the target changes the result: shared by all with the same grid."""
        return {"graph": target.graph, "grid": target.grid.model_dump(), "io": target.io}

    def libraries_for(self, target: Target | None) -> tuple[str, ...]:
        if target is None or target.graph == "onnx":
            return ("onnx", "onnxruntime", "numpy")
        return ("ai-edge-quantizer", "ai-edge-litert", "numpy")

    def run(self, source: Any, context: Context) -> None:
        """source: the float Graph of the target's format."""
        from dataclasses import replace

        from edgecv.parity import Tolerance, check
        from edgecv.replay import calibration_sample, graph_outputs, held_back
        from edgecv.stages.quantize import learned

        target = context.target
        assert target is not None
        images = context.images("train").pixels
        spec = source.inputs[0]
        float_input = replace(context.preprocess, layout=spec.layout, dtype="float32")
        calibration = float_input.normalise(calibration_sample(images, self.samples))
        if target.graph == "onnx":
            from edgecv.stages.quantize.onnx_qdq import quantize_onnx

            graph = quantize_onnx(source, calibration, target.grid, context.out)
        else:
            from edgecv.stages.quantize.tflite_int8 import quantize_tflite

            graph = quantize_tflite(source, calibration, target.grid, target.io, context.out)
        notes = learned.notes(source)
        for note in notes:
            log.warning("%s: %s", context.where, note)
        tolerance = Tolerance(self.min_sqnr_db, self.min_agreement)
        if notes:  # trained to be clipped hard, which the float graph does not do: told, not judged
            tolerance = Tolerance(float("-inf"), 0.0)
        unseen = held_back(images, self.samples, 256)
        parity = check(
            f"quantize {context.where}",
            graph_outputs(source, unseen, context.preprocess),
            graph_outputs(graph, unseen, context.preprocess),
            tolerance,
        )
        graph.facts["parity"] = parity.to_json()
        graph.facts["notes"] = notes
        graph.save_facts()
