"""Search of what meets the limits: first the knobs that cost no time, then layers kept in float.

    0  under a limit of SQNR: what is made without limits, whose far-off layers stay float; then the
       same, guarded as far as the limit. One that meets the limits is it
    1  default knobs; then one other value of one knob at a time, kept when it wins GAIN_DB of SQNR
       on images that were held back from calibration, and no agreement is lost; for OpenVINO the
       same with NNCF's quantizer and its knobs
    2  measured as a bundle on the target's engine: when the limits are met, that is it; else the
       other quantizer's best is measured as well
    3  noise of every rounded tensor (`sensitivity.py`), milliseconds of every layer in float
       (the engine's profiler), the integer program (`mixed.py`) for more and more SQNR; each
       answer is measured, until one meets the limits

Knobs are judged by SQNR and not by accuracy: a thousand images tell a loss of half a point from
none, the logits' error tells hundredths of a bit. Limits are judged on the test images, by what was
compiled. The fastest that meets the limits is taken; where nothing does, the nearest, and the run
says so.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv.backends import facts
from edgecv.context import Context
from edgecv.errors import EdgecvError, MissingExtraError
from edgecv.fidelity import Parity, Tolerance, require
from edgecv.graph import Graph
from edgecv.limits import Limits
from edgecv.methods.quantize.candidate import Prover, Trial
from edgecv.methods.quantize.learned import is_learned
from edgecv.methods.quantize.loss_by_layer import Sensitivities, loss_by_layer
from edgecv.methods.quantize.mixed import rungs
from edgecv.methods.quantize.options import Options, Sensitivity, for_nncf, without
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.methods.quantize.roads import road

log = logging.getLogger(__name__)

# Tried in this order, each from the best so far.
KNOBS: tuple[dict[str, Any], ...] = (
    {"rounding": "descent"},
    {"rounding": "adaround"},
    {"equalization": True},
    {"calibration": "percentile"},
    {"calibration": "minmax"},
    {"calibration": "entropy"},
    {"bias_correction": False},
    {"reconstruction": "network"},
)
NNCF_KNOBS: tuple[dict[str, Any], ...] = (
    {"fast_bias_correction": False},
    {"bias_correction": False},
    {"calibration": "mse"},
    {"preset": "performance"},
    {"smooth_quant": True},
)
GAIN_DB = 0.2
GAINS_DB = (1.5, 3.0, 5.0, 8.0, 12.0)
BEYOND_DB = (0.0, 1.5, 3.0, 6.0)  # what is missed, and more: noises add up roughly

Make = Callable[[Options, Path], tuple[Graph, Parity]]


@dataclass(frozen=True)
class Searched:
    """What was chosen, what was tried (the chosen one among them), and whether it met the limits.

    refused: settings that a quantizer or an engine could not make, with the reason
    """

    chosen: Trial
    tried: tuple[Trial, ...]
    limits: Limits
    refused: tuple[tuple[Options, str], ...] = ()

    @property
    def met(self) -> bool:
        return self.limits.distance(self.chosen.figures) == 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "limits": self.limits.asked(),
            "met": self.met,
            "chosen": next(i for i, t in enumerate(self.tried) if t is self.chosen),
            "tried": [t.to_json(self.limits) for t in self.tried],
            "refused": [{"options": o.to_json(), "reason": why} for o, why in self.refused],
        }


def search(
    source: Graph,
    context: Context,
    start: Options,
    samples: int,
    tolerance: Tolerance,
    limits: Limits,
    fixed: frozenset[str],
    sensitivity: Sensitivity = "noise",
    strict: bool = False,
) -> Graph:
    """Search, and put what was chosen into context.out, with what was tried among its facts.

    samples: calibration images; a third of data.train at least is held back from them, since knobs
    that fit the calibration images best are not the best ones
    sensitivity: how it is found out where a graph loses (`sensitivity.py`, `hessian.py`)
    """
    if is_learned(source):  # what was trained is what runs: there is nothing to choose
        fixed |= {name for change in KNOBS for name in change}
    count = min(samples, max(1, 2 * len(context.images("train").pixels) // 3))

    quantizer = Quantizer(source, context, count, unseen=True, strict=strict)
    asked = limits.sqnr_db is None and quantizer.asked is not None
    guarded = _guarded(source, context, samples, tolerance, limits)

    def quantize(options: Options, out: Path) -> tuple[Graph, Parity]:
        tell = options == start and not guarded
        return quantizer.make(options, out, tell=tell, guarded=not asked)

    with tempfile.TemporaryDirectory(prefix="edgecv-search-") as room:
        prover = Prover(source, context, limits, Path(room))
        losses = loss_by_layer(source, context, count, sensitivity, quantizer, asked)
        also = other_engines(source, context, start, fixed)
        kind = _of_task() if asked else Search
        sought = kind(quantize, losses, prover, context, limits, start, fixed, also, guarded)
        found = sought.run()
        chosen = found.chosen.graph
        if not quantizer.serves(chosen):
            require(f"quantize {context.where}", found.chosen.fidelity, tolerance)
        chosen.save_facts()
        for path in chosen.path.parent.iterdir():
            shutil.copy(path, context.out / path.name)
    graph = Graph.load(context.out)
    graph.facts["search"] = found.to_json()
    graph.save_facts()
    return graph


def _of_task() -> type[Search]:
    from edgecv.methods.quantize.task_search import TaskSearch

    return TaskSearch


def _guarded(
    source: Graph, context: Context, samples: int, tolerance: Tolerance, limits: Limits
) -> list[Make]:
    """What is made without limits, and the same guarded as far as the limit of SQNR; nothing
    without that limit."""
    if limits.sqnr_db is None:
        return []
    quantizer = Quantizer(source, context, samples)

    def at_least(least_db: float) -> Make:
        def make(options: Options, out: Path) -> tuple[Graph, Parity]:
            tell = least_db == -math.inf
            return quantizer.make(options, out, tolerance, tell=tell, least_db=least_db)

        return make

    return [at_least(-math.inf), at_least(limits.sqnr_db)]


def other_engines(
    source: Graph, context: Context, start: Options, fixed: frozenset[str]
) -> tuple[Options, ...]:
    """Where other quantizers than ours start: the target's engine's own, where it has every knob
    that the user set."""
    assert context.target is not None
    known = facts(context.target.backend).quantizers
    if "nncf" not in known or "engine" in fixed or is_learned(source):
        return ()
    options = for_nncf(start, fixed)
    return () if without(options) else (options,)


class Search:
    """One search. Raises EdgecvError where not even the default knobs can be made."""

    def __init__(
        self,
        quantize: Make,
        sensitivities: Sensitivities | None,
        prover: Prover,
        context: Context,
        limits: Limits,
        start: Options,
        fixed: frozenset[str] = frozenset(),
        also: Sequence[Options] = (),
        guarded: Sequence[Make] = (),
    ) -> None:
        """fixed: names of knobs that the user set; they are not searched.
        sensitivities: None where layers cannot stay float on this target
        also: where other quantizers start (`other_engines`)
        guarded: how the first candidates are made of `start`; the result is never further from the
        limits than they are
        """
        self.quantize, self.sensitivities, self.prover = quantize, sensitivities, prover
        self.context, self.limits, self.start, self.fixed = context, limits, start, fixed
        self.also, self.guarded = also, guarded
        self.tried: list[Trial] = []
        self.refused: list[tuple[Options, str]] = []
        self.steps = 0

    def run(self) -> Searched:
        self._doubt()
        guarded: list[Trial] = []
        for make in self.guarded:
            trial = self._try(self.start, make)
            if trial and trial.options not in [t.options for t in guarded] and self._proven(trial):
                guarded.append(trial)
                if self._met(trial):
                    return self._found(trial)
        bests = [b for start in (self.start, *self.also) if (b := self._knobs(start))]
        if not bests and not guarded:
            raise EdgecvError(self.context.where, self.refused[0][1])
        bests.sort(key=lambda t: t.fidelity.sqnr_db, reverse=True)
        judged: list[Trial] = []
        for i, best in enumerate(bests, 1):
            if self._proven(best, last=i == len(bests) and not judged and not guarded):
                judged.append(best)
                if self._met(best):
                    break
        if judged and not self._met(judged[-1]):
            for trial in self._mixed(self._nearest(judged)):
                judged.append(trial)
                if self._met(trial):
                    break
        return self._found(self._nearest([*judged, *guarded]))

    def _found(self, chosen: Trial) -> Searched:
        return Searched(chosen, tuple(self.tried), self.limits, tuple(self.refused))

    def _doubt(self) -> None:
        """Say so where the images are too few to tell the drop that is asked for."""
        images = self.context.images("test")
        limit, count = self.limits.accuracy_drop, len(images.pixels)
        if self.context.classifies and images.classes and limit and count and 100.0 / count > limit:
            log.warning(
                "%s: accuracy_drop %g is judged on %d images, of which one is %.2f points: what "
                "meets it has lost none of them",
                self.context.where, limit, count, 100.0 / count,
            )  # fmt: skip

    def _met(self, trial: Trial) -> bool:
        return self.limits.distance(trial.figures) == 0.0

    def _nearest(self, trials: Sequence[Trial]) -> Trial:
        return min(trials, key=lambda t: self.limits.distance(t.figures))

    def _knobs(self, start: Options) -> Trial | None:
        """The best of one quantizer; None where it cannot make the graph as it starts."""
        best = self._try(start)
        if best is None:
            return None
        for change in NNCF_KNOBS if start.engine == "nncf" else KNOBS:
            options = replace(best.options, **change)
            if set(change) & self.fixed or options == best.options:
                continue
            judged = self.limits.accuracy_drop is not None or self.limits.sqnr_db is not None
            if "reconstruction" in change and not judged:
                continue  # minutes, for answers that nobody limits
            if "smooth_quant" in change and not road(best.graph.format).attends(best.graph):
                continue  # nothing of such a network is evened out
            other = self._try(options)
            if other and _better(other.fidelity, best.fidelity):
                best = other
        return best

    def _mixed(self, best: Trial) -> Iterator[Trial]:
        """More and more layers in float, each measured."""
        return (trial for trial in self._more_float(best) if self._proven(trial))

    def _more_float(self, best: Trial) -> Iterator[Trial]:
        """More and more layers in float."""
        fixed = self.sensitivities is None or "keep_float" in self.fixed
        if fixed or not self.prover.runs(best):
            return
        assert self.sensitivities is not None
        self._tell("where it loses")
        problem = replace(self.sensitivities(best.graph), cost=self.prover.costs(best))
        for kept in rungs(problem, self._gains(best)):
            if trial := self._try(replace(best.options, keep_float=kept)):
                yield trial

    def _gains(self, best: Trial) -> tuple[float, ...]:
        """dB that layers in float are to win: as far as the limit of SQNR is away, at least."""
        if self.limits.sqnr_db is None:
            return GAINS_DB
        missed = self.limits.sqnr_db - (best.figures["sqnr_db"] or 0.0)
        far = (missed + more for more in BEYOND_DB)
        return (*GAINS_DB, *(gain for gain in far if gain > GAINS_DB[-1]))

    def _proven(self, trial: Trial, last: bool = False) -> bool:
        """Measure it as a bundle; whether the target's engine takes it. last: raise why not"""
        self._tell("measuring")
        try:
            self.prover.prove(trial)
        except EdgecvError as e:
            if last:
                raise
            self.refused.append((trial.options, str(e)))
            return False
        return True

    def _try(self, options: Options, guarded: Make | None = None) -> Trial | None:
        self._tell(_words(options))
        folder = self.prover.room / f"graph-{len(self.tried) + len(self.refused)}"
        try:
            graph, fidelity = (guarded or self.quantize)(options, folder)
        except EdgecvError as e:
            if isinstance(e, MissingExtraError) and options.engine == self.start.engine:
                raise
            self.refused.append((options, str(e)))
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if guarded:
            options = replace(options, keep_float=tuple(graph.facts["options"]["keep_float"]))
        self.tried.append(Trial(options, graph, fidelity))
        return self.tried[-1]

    def _tell(self, note: str) -> None:
        self.steps += 1
        self.context.progress(self.steps, max(self.steps, len(KNOBS) + 2), note)


def _better(a: Parity, b: Parity) -> bool:
    agrees = (a.top1_agreement or 0.0) >= (b.top1_agreement or 0.0)
    return a.sqnr_db > b.sqnr_db + GAIN_DB and agrees


def _words(options: Options) -> str:
    parts: list[str] = [options.calibration, options.rounding]
    if options.engine == "nncf":
        parts = ["nncf", options.calibration, options.preset]
    parts += ["equalized"] if options.equalization else []
    parts += ["tuned as a whole"] if options.reconstruction != "none" else []
    parts += [f"{len(options.keep_float)} layers in float"] if options.keep_float else []
    return ", ".join(parts)
