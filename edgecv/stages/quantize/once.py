"""Quantizations of one float graph with given knobs, each compared with the float graph."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgecv.backends import facts
from edgecv.errors import ModelError, ParityError, UnsupportedError
from edgecv.graph import Graph
from edgecv.ladder.layers import Sample
from edgecv.parity import COMPILE_INT8, SEEN_DB, Parity, Tolerance, check
from edgecv.replay import (
    JUDGED,
    Answers,
    calibration_sample,
    held_back,
    plain_answers,
    sample,
    seen,
)
from edgecv.replay import judged as judged_images
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import on_grid
from edgecv.samples import Feeds, calibration_data
from edgecv.stages.base import Context
from edgecv.stages.quantize.isolated import IMAGES, FarOff, Known, far_off, kept, whole_db
from edgecv.stages.quantize.learned import is_learned, notes
from edgecv.stages.quantize.options import Options
from edgecv.stages.quantize.roads import road
from edgecv.steadiness import explained

log = logging.getLogger(__name__)

HELD_BACK = 256
ROUNDS = 4  # of looking for layers that are far off: what is float no longer hides the next
NONE = Tolerance(-math.inf, 0.0)


class Quantizer:
    """One float graph of the target's format, on the grid of context.target.

    What calibration images tell is measured once, for however many choices of the knobs.
    samples: calibration images, from data.train; judged: images to compare on, at most; unseen: on
    others alone, however few they are, since knobs that are chosen on images fit those
    """

    def __init__(
        self,
        source: Graph,
        context: Context,
        samples: int,
        judged: int = JUDGED,
        unseen: bool = False,
    ) -> None:
        assert context.target is not None
        self.source, self.context, self.target = source, context, context.target
        images = context.images("train")
        pixels, self._made_up = images.samples, images.made_up
        chosen = calibration_sample(pixels, samples)
        self._samples = calibration_data(chosen, source.inputs, context.preprocess)
        others = held_back(pixels, samples, HELD_BACK)
        self._judged = others if unseen else sample(judged_images(pixels), judged)
        self._seen = not unseen and seen(pixels, samples)
        self._measured: dict[bool, Any] = {}

    def make(
        self,
        options: Options,
        out: Path,
        tolerance: Tolerance = NONE,
        tell: bool = True,
        least_db: float = -math.inf,
    ) -> tuple[Graph, Parity]:
        """The graph in out/, and its fidelity on images held back.

        tell: log what is doubtful about the calibration images
        least_db: what the guard of far-off layers tries to reach; missing it is no error
        A layer that is far off its float self (`isolated.py`) stays float, with a warning.
        Raises ParityError beyond the tolerance, UnsupportedError (such a layer, and a target that
        has no floats), and what the quantizers raise.
        """
        graph = self._held(options, out, tolerance, least_db)
        clipped = notes(self.source)
        if clipped:  # trained to be clipped hard, which the float graph does not do: told only
            tolerance = NONE
        outputs = plain_answers(graph, self._judged, self.context.preprocess, keep=True)
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
        told: list[FarOff] = []
        if is_learned(self.source):  # trained in integers: its float self is not what it should be
            return graph
        if not getattr(self._road, "APART", True):
            return graph
        floats, least = facts(self.target.backend).floats, tolerance.min_sqnr_db
        if floats and tolerance != NONE and options.weight_bits == 8:
            # layers of one bit are noise enough: what is rounded between them is not to blame
            fitted = self._seen and not self.source.facts.get("one_bit")
            wanted = max(least_db, COMPILE_INT8.min_sqnr_db)
            least = max(least, wanted + (SEEN_DB if fitted else 0.0))
        known: Known = {}
        for turn in range(ROUNDS):
            last = floats and turn == ROUNDS - 1
            found = far_off(self._floats(options), graph, self._few, least, last, known)
            new = self._named(options).difference(options.keep_float)
            names = [n for layer in found for n in layer.keep if n in new]
            if not names:
                break
            if not floats:
                engine = facts(self.target.backend).label
                what = f"{found[0]}; the {engine} has no floats to keep it in"
                hint = "train with integers (qat), or change that layer"
                if any(spec.groups and on_grid(spec) for spec in graph.outputs):
                    hint = (
                        "an output joins several quantities on one scale: end the graph before "
                        "that (--until), or return them apart"
                    )
                raise UnsupportedError(f"quantize {self.context.where}", what, hint)
            before = options
            options = replace(options, keep_float=(*options.keep_float, *dict.fromkeys(names)))
            made = self._kept_float(options, out)
            if last and (made is None or whole_db(self._floats(options), made, self._few) < least):
                graph = self._quantized(before, out)  # so many floats, and in vain
                break
            if made is None:
                what = "no layer of it is sound in int8: each is far off its float self"
                error = ParityError(f"quantize {self.context.where}", what, "ship it in fp32")
                preprocess = self.context.preprocess
                raise explained(error, self.source, self._judged, preprocess)
            graph = made
            told += found
        graph.facts["warnings"] = [*graph.facts["warnings"], *kept(told)]
        return graph

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

    def _floats(self, options: Options) -> bytes:
        """The float file as it was quantized."""
        return bytes(self._road.floats(self.source, self._measured, options))

    def _named(self, options: Options) -> frozenset[str]:
        """What `keep_float` takes."""
        layers = self._road.layers(self.source, self._measured, options)
        return frozenset().union(*layers.values())

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
