"""Everything that the samples tell of a float .tflite, measured once for any options.

Two passes, one image at a time: extremes and moments, then histograms between the extremes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import _signature_names, engine, quiet
from edgecv.bundling.inference import sample
from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, layers
from edgecv.samples import CalibrationData
from edgecv.stages.quantize._tflite_equalize import equalize
from edgecv.stages.quantize._tflite_even import Evened, even
from edgecv.stages.quantize._tflite_gates import gated, reached, through
from edgecv.stages.quantize._tflite_integers import flatten_biases, say_in_integers
from edgecv.stages.quantize._tflite_layers import seen_by
from edgecv.stages.quantize.options import Calibration
from edgecv.stages.quantize.ranges import (
    BINS,
    CALIBRATIONS,
    Extremes,
    Range,
    chosen,
    histogram,
)
from edgecv.stages.quantize.rounding import Moments

IMAGES = 32  # that tell which channels are uneven


class Measured:
    """What the samples say of a float .tflite, kept for several quantizations of it.

    content: the file that is quantized, said in operators that have integers
             (`_tflite_integers.py`), its channels evened out if asked for
    model:   the same, editable
    spans:   smallest and largest value by float activation
    means:   the same, the mean over the samples of each one's own; of the outputs the spans
    moments: of each layer's inputs, by its place among the layers
    evened:  ranges in those SiLU whose channels were made even for depthwise layers
    trained: whether its scales were learned, so that nothing is made even
    Raises ModelError: a tensor becomes NaN or infinite on the samples.
    """

    def __init__(
        self, content: bytes, samples: CalibrationData, equalization: bool = False,
        trained: bool = False,
    ) -> None:  # fmt: skip
        self.model = flatbuffer.parse(content, "quantize")
        old = flatbuffer.raise_codes(self.model)
        if say_in_integers(self.model) + flatten_biases(self.model) or old:
            content = flatbuffer.written(self.model)
        some: Any = samples  # an array, or feeds: both are images in a row
        self.evened: Evened = {}
        if not trained:
            count, self.evened = even(self.model, lambda: play(content, sample(some, IMAGES)))
            content = flatbuffer.written(self.model) if count else content
        if equalization:
            equalize(self.model, play(content, samples))
            content = flatbuffer.written(self.model)
        self.content, self.samples, self.equalization = content, samples, equalization
        main = flatbuffer.graph_of(self.model)
        real = flatbuffer.enum("TensorType", "FLOAT32")
        every = [*main.inputs, *(t for op in main.operators for t in op.outputs)]
        watched = dict.fromkeys(int(t) for t in every if main.tensors[t].type == real)
        self._places = {main.tensors[t].name.decode(): t for t in watched}
        self.moments: dict[int, Moments] = {}
        self.spans, self.means = self._first_pass()
        self._counts: dict[str, np.ndarray] | None = None

    def ranges(self, calibration: Calibration) -> dict[str, Range]:
        """The range of each tensor by that method (`ranges.chosen`)."""
        choose, inner = CALIBRATIONS[calibration], list(gated(self.model))
        if choose is None:
            spans = self.means if calibration == "mean" else self.spans
            inside = {name: reached(spans[name]) for name in inner if name in spans}
            at = 0 if calibration == "mean" else 1
            return spans | inside | {name: both[at] for name, both in self.evened.items()}
        if self._counts is None:
            self._counts = self._second_pass()
        main = flatbuffer.graph_of(self.model)
        whole = {main.tensors[t].name.decode() for t in main.outputs}
        counts = [self._counts[name] for name in self.spans]
        inside = {
            name: through(self._counts[name], self.spans[name])
            for name in inner if name in self.spans
        }  # fmt: skip
        inside |= {name: typical for name, (typical, _) in self.evened.items()}
        return chosen(choose, self.spans, counts, whole, symmetric=False) | inside

    def _first_pass(self) -> tuple[dict[str, Range], dict[str, Range]]:
        seen = Extremes(len(self._places))
        every = list(enumerate(layers(self.model)))
        for value_of in play(self.content, self.samples):
            values = {name: value_of(place) for name, place in self._places.items()}
            lows, highs = ([float(f(v)) for v in values.values()] for f in (np.min, np.max))
            seen.add(lows, highs)
            for name, low, high in zip(values, lows, highs, strict=True):
                if not np.isfinite([low, high]).all():
                    what = f"tensor {name} becomes NaN or infinite on the samples"
                    hint = "is it max pooling with padding? put it after a ReLU: int8 has no -inf"
                    raise ModelError("quantize", what, hint if "padv2" in name else "")
            for i, (kind, op) in every:
                entry = value_of(int(op.inputs[OPERANDS[kind][0]]))
                x = seen_by(self.model, kind, op, entry)
                if x is not None:
                    self.moments.setdefault(i, Moments()).add(x, len(self.samples))
        main = flatbuffer.graph_of(self.model)
        whole = {main.tensors[t].name.decode() for t in main.outputs}
        spans = dict(zip(self._places, seen.whole(), strict=True))
        means = zip(self._places, seen.mean(), strict=True)
        return spans, {name: spans[name] if name in whole else mean for name, mean in means}

    def _second_pass(self) -> dict[str, np.ndarray]:
        counts = {name: np.zeros(BINS, np.int64) for name in self._places}
        for value_of in play(self.content, self.samples):
            for name, place in self._places.items():
                counts[name] += histogram(value_of(place), *self.spans[name])
        return counts


def measure_tflite(graph: Graph, samples: CalibrationData, equalization: bool = False) -> Measured:
    """For `quantize_tflite(..., measured=...)`, where one graph is quantized in several ways."""
    return Measured(graph.path.read_bytes(), samples, equalization)


def play(content: bytes, samples: CalibrationData) -> Iterator[Callable[[int], np.ndarray]]:
    """Run one sample after the other; each time, a function from a tensor's index to its value."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # "preserve_all_tensors is for debugging": it is
        net = engine().Interpreter(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=True
        )
        net.allocate_tensors()
    details = net.get_input_details()
    names = _signature_names(net)
    places = {names.get(int(d["index"]), d["name"]): d["index"] for d in details}
    for one in samples:
        feed = {next(iter(places)): one[None]} if isinstance(one, np.ndarray) else one
        for name, place in places.items():
            net.set_tensor(place, feed[name])
        net.invoke()
        yield net.get_tensor
