"""Everything that the samples tell of a float ONNX graph, measured once for any options.

Two passes, one image after the other: extremes and moments, then histograms between the extremes.
Memory holds one image's activations for each core, a histogram for each tensor and an H for each
layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import Sample, activations, layer_inputs, with_shapes
from edgecv.cores import ahead
from edgecv.errors import StageError
from edgecv.graph import Graph
from edgecv.graphs.onnx.geometry import geometry
from edgecv.graphs.onnx.layers import layers
from edgecv.graphs.onnx.names import node_names
from edgecv.methods.quantize.onnx_equalize import equalized
from edgecv.methods.quantize.onnx_weights import own_biases
from edgecv.methods.quantize.options import Calibration
from edgecv.methods.quantize.ranges import (
    BINS,
    CALIBRATIONS,
    Extremes,
    Range,
    chosen,
    histogram,
)
from edgecv.methods.quantize.rounding import Moments, columns, places_of
from edgecv.samples import CalibrationData


class Measured:
    """What the samples say of a graph, kept for several quantizations of it.

    model:   the onnx.ModelProto that is quantized: shapes inferred, channels evened out if asked
             for, a bias of its own in every layer
    samples: float32 (N, C, H, W), normalised as the network expects, or feeds of all inputs
    spans:   smallest and largest value by tensor, the input and every float activation
    means:   the same, the mean over the samples of each one's own; of the outputs the spans
    moments: of each layer's inputs, by the layer's output
    Raises StageError: an activation is NaN or infinite.
    """

    def __init__(self, model: Any, samples: CalibrationData, equalization: bool = False) -> None:
        if equalization:
            model = equalized(model, samples)
        self.model = with_shapes(own_biases(model))
        node_names(self.model)  # names the nodes that have none
        self.samples, self.equalization = samples, equalization
        self._names, self._run = activations(self.model)
        self.moments = {node.output[0]: Moments() for node in layers(self.model)}
        self.spans, self.means = self._first_pass()
        self._counts: np.ndarray | None = None
        self._channels: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def ranges(self, calibration: Calibration, symmetric: bool) -> dict[str, Range]:
        """The range of each tensor by that method (`ranges.chosen`)."""
        choose = CALIBRATIONS[calibration]
        if choose is None:
            return dict(self.means if calibration == "mean" else self.spans)
        if self._counts is None:
            self._counts = self._second_pass()
        whole = {o.name for o in self.model.graph.output}
        return chosen(choose, self.spans, self._counts, whole, symmetric)

    def channels(self, tensors: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Smallest and largest value by channel, float64 (C,) each, of activations (N, C, ...)."""
        new = [name for name in tensors if name not in self._channels]
        for values in layer_inputs(self.model, new, self.samples) if new else ():
            for name in new:
                rows = values[name].reshape(values[name].shape[1], -1).astype(np.float64)
                low, high = rows.min(1), rows.max(1)
                old = self._channels.get(name, (low, high))
                self._channels[name] = np.minimum(old[0], low), np.maximum(old[1], high)
        return {name: self._channels[name] for name in tensors}

    def _first_pass(self) -> tuple[dict[str, Range], dict[str, Range]]:
        shapes = {t.name: tuple(t.dims) for t in self.model.graph.initializer}
        every, images = list(layers(self.model)), len(self.samples)

        def look(sample: Sample) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
            values = self._run(sample)
            held = dict(zip(self._names, values, strict=True))
            return [v.min() for v in values], [v.max() for v in values], held

        def add(held: dict[str, np.ndarray], node: Any) -> None:
            x = held[node.input[0]]
            if node.op_type == "Gemm":
                x = np.ascontiguousarray(x.T)[None]  # a row for every token
            else:
                shape = shapes[node.input[1]]
                most = places_of(math.prod(shape[1:]), images)
                x = columns(x[0], shape[2:], *geometry(node), most)
            self.moments[node.output[0]].add(x, images)

        extremes = Extremes(len(self._names))
        for low, high, held in ahead(look, self.samples):
            extremes.add(low, high)
            for _ in ahead(partial(add, held), every):
                pass
        spans = dict(zip(self._names, extremes.whole(), strict=True))
        for name, span in spans.items():
            if not np.isfinite(span).all():
                raise StageError(f"quantize: tensor {name!r}", "is NaN or infinite on the samples")
        whole = {o.name for o in self.model.graph.output}
        means = zip(self._names, extremes.mean(), strict=True)
        return spans, {name: spans[name] if name in whole else mean for name, mean in means}

    def _second_pass(self) -> np.ndarray:
        def look(sample: Sample) -> np.ndarray:
            rows = zip(self._run(sample), self.spans.values(), strict=True)
            return np.stack([histogram(value, *span, len(self.samples)) for value, span in rows])

        counts = np.zeros((len(self._names), BINS), np.int64)
        for found in ahead(look, self.samples):
            counts += found
        return counts


def measure_onnx(graph: Graph, samples: CalibrationData, equalization: bool = False) -> Measured:
    """For `quantize_onnx(..., measured=...)`, where one graph is quantized in several ways."""
    import onnx

    model = with_shapes(onnx.load_model(str(graph.path)))
    return Measured(model, samples, equalization)
