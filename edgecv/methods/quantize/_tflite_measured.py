"""Everything that the samples tell of a float .tflite, measured once for any options.

Two passes, one image after the other: extremes and moments, then histograms between the extremes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from threading import local
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import _signature_names, engine, quiet
from edgecv.bundling.inference import sample
from edgecv.cores import ahead
from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, layers
from edgecv.methods.quantize._tflite_equalize import equalize
from edgecv.methods.quantize._tflite_even import Evened, even
from edgecv.methods.quantize._tflite_gates import gated, reached, through
from edgecv.methods.quantize._tflite_integers import flatten_biases, say_in_integers
from edgecv.methods.quantize._tflite_layers import seen_by
from edgecv.methods.quantize.options import Calibration
from edgecv.methods.quantize.ranges import (
    BINS,
    CALIBRATIONS,
    Extremes,
    Range,
    chosen,
    histogram,
)
from edgecv.methods.quantize.rounding import Moments
from edgecv.samples import CalibrationData

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
        extremes = Extremes(len(self._places))
        every = list(enumerate(layers(self.model)))
        run = Player(self.content)

        def look(sample: Any) -> tuple[list[float], list[float], dict[int, np.ndarray]]:
            value_of = run(sample)
            values = {place: value_of(place) for place in self._places.values()}
            lows, highs = ([float(f(v)) for v in values.values()] for f in (np.min, np.max))
            seen = {}
            for i, (kind, op) in every:
                place = int(op.inputs[OPERANDS[kind][0]])
                entry = values[place] if place in values else value_of(place)
                x = seen_by(self.model, kind, op, entry, len(self.samples))
                if x is not None:
                    seen[i] = x
            return lows, highs, seen

        for lows, highs, seen in ahead(look, self.samples):
            extremes.add(lows, highs)
            for name, low, high in zip(self._places, lows, highs, strict=True):
                if not np.isfinite([low, high]).all():
                    what = f"tensor {name} becomes NaN or infinite on the samples"
                    hint = "is it max pooling with padding? put it after a ReLU: int8 has no -inf"
                    raise ModelError("quantize", what, hint if "padv2" in name else "")
            for i, x in seen.items():
                self.moments.setdefault(i, Moments()).add(x, len(self.samples))
        main = flatbuffer.graph_of(self.model)
        whole = {main.tensors[t].name.decode() for t in main.outputs}
        spans = dict(zip(self._places, extremes.whole(), strict=True))
        means = zip(self._places, extremes.mean(), strict=True)
        return spans, {name: spans[name] if name in whole else mean for name, mean in means}

    def _second_pass(self) -> dict[str, np.ndarray]:
        run = Player(self.content)

        def look(sample: Any) -> np.ndarray:
            value_of = run(sample)
            places, images = self._places.items(), len(self.samples)
            spans = self.spans
            return np.stack([histogram(value_of(at), *spans[name], images) for name, at in places])

        counts = np.zeros((len(self._places), BINS), np.int64)
        for found in ahead(look, self.samples):
            counts += found
        return dict(zip(self._places, counts, strict=True))


def measure_tflite(graph: Graph, samples: CalibrationData, equalization: bool = False) -> Measured:
    """For `quantize_tflite(..., measured=...)`, where one graph is quantized in several ways."""
    return Measured(graph.path.read_bytes(), samples, equalization)


def play(content: bytes, samples: CalibrationData) -> Iterator[Callable[[int], np.ndarray]]:
    """Run one sample after the other; each time, a function from a tensor's index to its value."""
    return map(Player(content), samples)


class Player:
    """Runs a float .tflite for what its tensors hold; each thread has an interpreter of its own.

    A call takes a sample, (H, W, C) or feeds, and gives a function from a tensor's index to its
    value, which holds until the thread's next call.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._own = content, local()

    def __call__(self, sample: Any) -> Callable[[int], np.ndarray]:
        if not hasattr(self._own, "net"):
            self._own.net = self._opened()
            names = _signature_names(self._own.net)
            details = self._own.net.get_input_details()
            self._own.places = {names.get(int(d["index"]), d["name"]): d["index"] for d in details}
        net, places = self._own.net, self._own.places
        feed = {next(iter(places)): sample[None]} if isinstance(sample, np.ndarray) else sample
        for name, place in places.items():
            net.set_tensor(place, feed[name])
        net.invoke()
        value: Callable[[int], np.ndarray] = net.get_tensor
        return value

    def _opened(self) -> Any:
        with quiet(), warnings.catch_warnings():  # in this order: a lock, then what it guards
            warnings.simplefilter("ignore")  # "preserve_all_tensors is for debugging": it is
            net = engine().Interpreter(
                model_content=self._content,
                num_threads=1,
                experimental_preserve_all_tensors=True,
            )
            net.allocate_tensors()
        return net
