"""The search where the task can be asked: what chooses are images held back from calibration,
without labels, and what judges are the labelled test images.

    1  every way of choosing ranges, of the best one without bias correction too: ranked by the
       task's fidelity to float (`edgecv.bundling.task_fidelity`) on images held back
    2  the best first, measured as a bundle: the first that meets the limits is it. What is far
       behind the best is not measured
    3  the same with what other quantizers make (NNCF, a minute), as they start
    4  fidelity that each rounded tensor alone loses, milliseconds of every layer in float, and the
       integer program (`mixed.py`) for less and less of it; each answer that is the more faithful
       for its floats is measured, until one meets the limits

The winner of many on the same images is not to be believed: few are judged, in an order that these
images had no part in, and each judged drop has its paired bootstrap interval (`Task.difference`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from edgecv.errors import EdgecvError
from edgecv.methods.quantize.candidate import Trial
from edgecv.methods.quantize.options import NNCF_CALIBRATIONS, Calibration
from edgecv.methods.quantize.search import Search, Searched

log = logging.getLogger(__name__)

EVEN = 0.02  # of the metric: what differs by less is equal on some twenty images
NEAR = 0.05  # of the metric: candidates that are less faithful than the best by more are left out
MOST = 3  # of one quantizer's that are judged


class TaskSearch(Search):
    """See `Search`. What `quantize` makes says its fidelity (`Trial.asked`)."""

    def run(self) -> Searched:
        made: list[Trial] = []
        judged: list[Trial] = []
        for ways in (self._of_ranges(), filter(None, map(self._try, self.also))):
            found = list(ways)
            made += found
            for trial in _ranked(found, made)[:MOST]:
                if self._proven(trial):
                    judged.append(trial)
                    if self._met(trial):
                        return self._told(trial)
        if not made:
            raise EdgecvError(self.context.where, self.refused[0][1])
        for trial in self._islands(self._nearest(judged)) if judged else ():
            judged.append(trial)
            if self._met(trial):
                break
        if not judged:
            raise EdgecvError(self.context.where, self.refused[-1][1])
        return self._told(self._nearest(judged))

    def _of_ranges(self) -> Iterator[Trial]:
        """Every choice of ranges, and the best one's biases left alone (or corrected)."""
        own, nncf = self.start.calibration, self.start.engine == "nncf"
        known = NNCF_CALIBRATIONS if nncf else get_args(Calibration)
        ways = [own, *(way for way in known if way != own and "calibration" not in self.fixed)]
        found = [t for way in ways if (t := self._try(replace(self.start, calibration=way)))]
        yield from found
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


def _ranked(found: Sequence[Trial], made: Sequence[Trial]) -> list[Trial]:
    """Those worth judging, of all that were made. What is as good as the best but for chance stays
    in its order: the settings as they start are first."""
    best = max((t.asked for t in made), default=0.0)
    even = [t for t in found if t.asked >= best - EVEN]
    behind = [t for t in found if best - EVEN > t.asked >= best - NEAR]
    return [*even, *sorted(behind, key=_worse)]
