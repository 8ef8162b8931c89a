"""Quantizations of one float graph with given knobs, each compared with the float graph."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgecv.backends import facts
from edgecv.bundling.inference import (
    JUDGED,
    Answers,
    calibration_sample,
    held_back,
    plain_answers,
    sample,
    seen,
)
from edgecv.bundling.inference import judged as judged_images
from edgecv.bundling.steadiness import explained
from edgecv.bundling.task_fidelity import FAITHFUL, TaskFidelity
from edgecv.context import Context
from edgecv.diagnosis.parity.layers import Sample
from edgecv.errors import ModelError, ParityError, UnsupportedError
from edgecv.fidelity import COMPILE_INT8, SEEN_DB, Parity, Tolerance, check
from edgecv.files import file_sha256
from edgecv.graph import Graph
from edgecv.methods.quantize.costly import Costly, costly, problem, why_float
from edgecv.methods.quantize.harm import Known, Progress
from edgecv.methods.quantize.isolated import IMAGES, FarOff, far_off, kept, whole_db
from edgecv.methods.quantize.learned import is_learned, notes
from edgecv.methods.quantize.mixed import Problem
from edgecv.methods.quantize.options import DEFAULT, Options, without
from edgecv.methods.quantize.roads import road
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import on_grid
from edgecv.samples import Feeds, calibration_data

log = logging.getLogger(__name__)

HELD_BACK = 256
ROUNDS = 4  # of looking for layers that are far off: what is float no longer hides the next
NONE = Tolerance(-math.inf, 0.0)
GAIN = 0.02  # of the task's fidelity: less is not worth a layer in float
# What is tried, in this order, of a detector that the defaults do not serve: it costs no time on
# the device, as layers in float do, and SQNR does not tell which of them serves the task.
OTHER_KNOBS: tuple[dict[str, Any], ...] = (
    {"calibration": "percentile"},
    {"bias_correction": False},
    {"calibration": "percentile", "bias_correction": False},
    {"calibration": "minmax"},
)


class Quantizer:
    """One float graph of the target's format, on the grid of context.target.

    What calibration images tell is measured once, for however many choices of the knobs.
    samples: calibration images, from data.train; judged: images to compare on, at most; unseen: on
    others alone, however few they are, since knobs that are chosen on images fit those; strict:
    the tolerance is the user's own, and holds where the task is well served too; fixed: names of
    knobs that the user set, which stay as they are
    """

    def __init__(
        self,
        source: Graph,
        context: Context,
        samples: int,
        judged: int = JUDGED,
        unseen: bool = False,
        strict: bool = False,
        fixed: frozenset[str] = frozenset(),
    ) -> None:
        assert context.target is not None
        self.source, self.context, self.target = source, context, context.target
        self._fixed = fixed
        images = context.images("train")
        pixels, self._made_up = images.samples, images.made_up
        chosen = calibration_sample(pixels, samples)
        self._samples = calibration_data(chosen, source.inputs, context.preprocess)
        others = held_back(pixels, samples, HELD_BACK)
        self._judged = others if unseen else sample(judged_images(pixels), judged)
        self._seen = not unseen and seen(pixels, samples)
        self._measured: dict[bool, Any] = {}
        self._strict = strict
        self._said: tuple[str, Answers] | None = None

    def make(
        self,
        options: Options,
        out: Path,
        tolerance: Tolerance = NONE,
        tell: bool = True,
        least_db: float = -math.inf,
        guarded: bool = True,
    ) -> tuple[Graph, Parity]:
        """The graph in out/, and its fidelity on images held back.

        tell: log what is doubtful about the calibration images
        least_db: what the guard of far-off layers tries to reach; missing it is no error
        guarded: a layer that is far off its float self (`isolated.py`), or where the task can be
        asked, costs it much (`costly.py`), stays float, with a warning
        Raises ParityError beyond the tolerance, UnsupportedError (such a layer, and a target that
        has no floats), and what the quantizers raise.
        """
        make = self._held if guarded else self._quantized
        graph = make(options, out, *((tolerance, least_db) if guarded else ()))
        clipped = notes(self.source)
        outputs = self._answers(graph)
        if self.asked is not None:
            graph.facts["fidelity"] = self.asked.to_json(self.asked.score(outputs))
        if clipped or self.serves(graph):  # clipped hard by training, which float does not do
            tolerance = NONE
        named = kinds(self.source.outputs)
        where = f"quantize {self.context.where}"
        try:
            parity = check(
                where, self._reference, outputs, tolerance, named, self._made_up, self.source.bounds
            )
        except ParityError as e:
            raise explained(e, self.source, self._judged, self.context.preprocess) from None
        graph.facts["parity"] = parity.to_json()
        graph.facts["notes"] = clipped
        if tell:
            for note in (*graph.facts["warnings"], *graph.facts["notes"]):
                log.warning("%s: %s", self.context.where, note)
        graph.save_facts()
        return graph, parity

    def _held(
        self, options: Options, out: Path, tolerance: Tolerance, least_db: float = -math.inf
    ) -> Graph:
        """The graph, made once more with each layer that is far off its float self kept float."""
        graph = self._quantized(options, out)
        if is_learned(self.source):  # trained in integers: its float self is not what it should be
            return graph
        if not getattr(self._road, "APART", True):
            return graph
        said: list[str] = []
        asks = tolerance != NONE and least_db == -math.inf and options.weight_bits == 8
        if asks and self.asked is not None:
            graph, options, said, fine = self._asked_of_task(graph, options, out)
            passes = self._floats and self._fits(graph, tolerance)  # as good as floats make it
            if (fine and not self._strict) or passes:
                graph.facts["warnings"] = [*graph.facts["warnings"], *said]
                return graph
            least = tolerance.min_sqnr_db
        else:
            least = self._least_db(options, tolerance, least_db)
        graph, found = self._near(graph, options, out, least)
        graph.facts["warnings"] = [*graph.facts["warnings"], *said, *kept(found)]
        return graph

    def _least_db(self, options: Options, tolerance: Tolerance, least_db: float) -> float:
        """What the whole is to answer on images that it was calibrated on."""
        least = tolerance.min_sqnr_db
        if self._floats and tolerance != NONE and options.weight_bits == 8:
            # layers of one bit are noise enough: what is rounded between them is not to blame
            fitted = self._seen and not self.source.facts.get("one_bit")
            wanted = max(least_db, COMPILE_INT8.min_sqnr_db)
            least = max(least, wanted + (SEEN_DB if fitted else 0.0))
        return least

    def _near(
        self, graph: Graph, options: Options, out: Path, least: float
    ) -> tuple[Graph, list[FarOff]]:
        """The graph with each layer that is far off its float self kept float, and these layers.

        least: dB that the whole is to answer"""
        told: list[FarOff] = []
        known: Known = {}
        for turn in range(ROUNDS):
            last = self._floats and turn == ROUNDS - 1
            floats = self._float_file(options)
            found = far_off(floats, graph, self._few, least, last, known, self._looking)
            names = self._new(options, [layer.keep for layer in found])
            if not names:
                break
            if not self._floats:
                raise self._no_floats(found[0], graph)
            before = options
            options = replace(options, keep_float=(*options.keep_float, *names))
            made = self._kept_float(options, out)
            if last and (
                made is None or whole_db(self._float_file(options), made, self._few) < least
            ):
                graph = self._quantized(before, out)  # so many floats, and in vain
                break
            if made is None:
                what = "no layer of it is sound in int8: each is far off its float self"
                error = ParityError(f"quantize {self.context.where}", what, "ship it in fp32")
                preprocess = self.context.preprocess
                raise explained(error, self.source, self._judged, preprocess)
            graph = made
            told += found
        return graph, told

    def _asked_of_task(
        self, graph: Graph, options: Options, out: Path
    ) -> tuple[Graph, Options, list[str], bool]:
        """(the graph, with the layers in float that cost the task most, where it is the better for
        it; its options; what is said of them; whether the task is well served)"""
        assert self.asked is not None
        graph, options, now, said = self._other_knobs(graph, options, out)
        blamed = list[Costly]()
        known: Known = {}
        for _ in range(ROUNDS if self._floats else 0):
            if now >= FAITHFUL:
                break
            floats = self._float_file(options)
            found = costly(floats, graph, self._few, self.asked, known, self._looking)
            names = self._new(options, [layer.keep for layer in found])
            more = replace(options, keep_float=(*options.keep_float, *names))
            made = self._kept_float(more, out) if names else None
            then = self.asked.score(self._answers(made)) if made else 0.0
            if made is None or then < now + GAIN:
                graph = self._quantized(options, out) if names else graph
                break
            graph, options, now, blamed = made, more, then, [*blamed, *found]
        said += why_float(blamed)
        if now < FAITHFUL:
            said.append(
                f"int8 keeps {100 * now:.1f} of 100 {self.asked.task.points} of float's own "
                "answers: only labelled images can tell whether it will do"
            )
        return graph, options, said, now >= FAITHFUL

    def _other_knobs(
        self, graph: Graph, options: Options, out: Path
    ) -> tuple[Graph, Options, float, list[str]]:
        """(the graph, by the first of OTHER_KNOBS that serves the task, else the best; its options;
        its fidelity; what is said of it)"""
        assert self.asked is not None
        first = best = self.asked.score(self._answers(graph))
        found = last = options
        for change in OTHER_KNOBS:
            other = replace(options, **change)
            if best >= FAITHFUL or set(change) & self._fixed or other == options:
                continue
            if without(other):  # NNCF does not have them all
                continue
            graph, last = self._quantized(other, out), other
            now = self.asked.score(self._answers(graph))
            if now >= min(best + GAIN, FAITHFUL):
                best, found = now, other
        if last != found:
            graph = self._quantized(found, out)
        if found == options:
            return graph, found, best, []
        knobs = ", ".join(
            f"{k}: {v}" for k, v in found.to_json().items() if v != options.to_json()[k]
        )
        said = (
            f"{knobs}: int8 keeps {100 * best:.1f} of 100 {self.asked.task.points} of float's own "
            f"answers so, and {100 * first:.1f} without"
        )
        return graph, found, best, [said]

    def serves(self, graph: Graph) -> bool:
        """Whether the task is served well by a graph that was made, and that is what counts."""
        return not self._strict and bool(graph.facts.get("fidelity", {}).get("good"))

    def losses(self, graph: Graph, progress: Progress) -> Problem:
        """What of a graph that was made costs the task how much (`costly.problem`)."""
        assert self.asked is not None
        even = bool(graph.facts["options"].get("equalization"))
        floats = self._float_file(replace(DEFAULT, equalization=even))
        return problem(floats, graph, self._few, self.asked, progress)

    def _new(self, options: Options, keep: Sequence[Sequence[str]]) -> list[str]:
        """Names of layers that are not float yet, each once."""
        new = self._named(options).difference(options.keep_float)
        return list(dict.fromkeys(n for names in keep for n in names if n in new))

    def _no_floats(self, layer: FarOff, graph: Graph) -> UnsupportedError:
        engine = facts(self.target.backend).label
        what = f"{layer}; the {engine} has no floats to keep it in"
        hint = "train with integers (qat), or change that layer"
        if any(spec.groups and on_grid(spec) for spec in graph.outputs):
            hint = (
                "an output joins several quantities on one scale: end the graph before "
                "that (--until), or return them apart"
            )
        return UnsupportedError(f"quantize {self.context.where}", what, hint)

    def _looking(self, done: int, count: int) -> None:
        """Tell how far the look at every layer is."""
        self.context.progress(done, count, "what each layer alone loses")

    def _fits(self, graph: Graph, tolerance: Tolerance) -> bool:
        """Whether `make` lets it pass."""
        named, bounds = kinds(self.source.outputs), self.source.bounds
        try:
            check(
                "", self._reference, self._answers(graph), tolerance, named, self._made_up, bounds
            )
        except ParityError:
            return False
        return True

    def _kept_float(self, options: Options, out: Path) -> Graph | None:
        """The graph; None where nothing is left to quantize."""
        try:
            return self._quantized(options, out)
        except ModelError:
            return None

    def _quantized(self, options: Options, out: Path) -> Graph:
        made: Graph = self._road.quantize(
            self.source, self._samples, self.target, out, options, self._measured
        )
        return made

    def _float_file(self, options: Options) -> bytes:
        """The float file as it was quantized."""
        return bytes(self._road.floats(self.source, self._measured, options))

    def _named(self, options: Options) -> frozenset[str]:
        """What `keep_float` takes."""
        layers = self._road.layers(self.source, self._measured, options)
        return frozenset().union(*layers.values())

    @property
    def _floats(self) -> bool:
        """Whether the target's engine computes in floats too."""
        return facts(self.target.backend).floats

    @property
    def _road(self) -> ModuleType:
        """How graphs of that format are made int8."""
        return road(self.source.format)

    @property
    def _few(self) -> list[Sample]:
        """Some of the calibration images: float32 (1, C, H, W); or feeds."""
        some = sample(self._samples, IMAGES)
        if isinstance(some, Feeds):
            return list(some.first())
        first = some.transpose(0, 3, 1, 2) if self.source.inputs[0].layout == "NHWC" else some
        return [np.ascontiguousarray(x[None]) for x in first]

    @cached_property
    def _reference(self) -> Answers:
        return plain_answers(self.source, self._judged, self.context.preprocess)

    @cached_property
    def asked(self) -> TaskFidelity | None:
        """The task's own measure on the images that are judged; None where it has none."""
        if self._made_up:
            return None
        return TaskFidelity.of(self.source, self._reference, self.context)

    def _answers(self, graph: Graph) -> Answers:
        """To the images that are judged; the last graph's are kept."""
        key = file_sha256(graph.path)
        if self._said is None or self._said[0] != key:
            self._said = key, plain_answers(graph, self._judged, self.context.preprocess, keep=True)
        return self._said[1]
