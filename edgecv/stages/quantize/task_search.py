"""The search where the task can be asked: what chooses are images held back from calibration,
without labels, and what judges are the labelled test images.

    1  every way of choosing ranges, of the best one without bias correction too, and NNCF's own:
       ranked by the task's fidelity to float (`task_fidelity.py`) on images held back
    2  the best first, measured as a bundle: the first that meets the limits is it. What is far
       behind the best is not measured
    3  fidelity that each rounded tensor alone loses, milliseconds of every layer in float, and the
       integer program (`mixed.py`) for less and less of it; each answer that is the more faithful
       for its floats is measured, until one meets the limits

The winner of many on the same images is not to be believed: few are judged, in an order that these
images had no part in, and each judged drop has its paired bootstrap interval (`Task.difference`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from edgecv.errors import EdgecvError
from edgecv.stages.quantize.options import NNCF_CALIBRATIONS, Calibration, Options
from edgecv.stages.quantize.search import Search, Searched
from edgecv.stages.quantize.trial import Trial

log = logging.getLogger(__name__)

NEAR = 0.05  # of the metric: candidates that are less faithful than the best by more are left out
MOST = 4  # of them that are judged


class TaskSearch(Search):
    """See `Search`. What `quantize` makes says its fidelity (`Trial.fidelity_of_task`)."""

    def run(self) -> Searched:
        starts = (self.start, *self.also)
        ranked = sorted((t for s in starts for t in self._of_ranges(s)), key=_worse)
        if not ranked:
            raise EdgecvError(self.context.where, self.refused[0][1])
        best, judged = ranked[0], list[Trial]()
        for i, trial in enumerate(ranked[:MOST]):
            if trial.asked < best.asked - NEAR:
                break
            last = not judged and i + 1 == len(ranked)
            if self._proven(trial, last):
                judged.append(trial)
                if self._met(trial):
                    return self._told(trial)
        for trial in self._islands(self._nearest(judged or [best])):
            judged.append(trial)
            if self._met(trial):
                break
        if not judged:
            raise EdgecvError(self.context.where, self.refused[-1][1])
        return self._told(self._nearest(judged))

    def _of_ranges(self, start: Options) -> Iterator[Trial]:
        """Of one quantizer: every choice of ranges, and the best one's biases left alone."""
        known = NNCF_CALIBRATIONS if start.engine == "nncf" else get_args(Calibration)
        ways = [start.calibration, *(c for c in known if c != start.calibration)]
        found = []
        for way in ways[:1] if "calibration" in self.fixed else ways:
            if trial := self._try(replace(start, calibration=way)):
                found.append(trial)
                yield trial
        if found and "bias_correction" not in self.fixed:
            best = min(found, key=_worse).options
            if trial := self._try(replace(best, bias_correction=not best.bias_correction)):
                yield trial

    def _islands(self, best: Trial) -> Iterator[Trial]:
        """More and more layers in float, those measured that are the more faithful for it."""
        least = best.asked
        for trial in self._more_float(best):
            if trial.asked > least and self._proven(trial):
                least = trial.asked
                yield trial

    def _told(self, chosen: Trial) -> Searched:
        """The chosen one, with a warning where the images cannot tell what is asked."""
        limit, judged = self.limits.accuracy_drop, chosen.judged
        if limit is not None and judged and judged.unsure(limit):
            note = judged.doubt(limit)
            log.warning("%s: %s", self.context.where, note)
            chosen.graph.facts["warnings"] = [*chosen.graph.facts["warnings"], note]
        return self._found(chosen)


def _worse(trial: Trial) -> float:
    return -trial.asked
