"""The time of a graph beside the time of the same graph with one thing mended.

    saving = t_shipped (1 - r),   r = median over rounds of t_mended / t_shipped

Sessions take turns (`edgecv.benchmark.sampling`), so that a busy machine slows both alike. All
experiments of a report share one budget of seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.backends import Session, run_module
from edgecv.benchmark.sampling import DRIFT, SITTING_ROUNDS, Sampler
from edgecv.benchmark.statistics import interval
from edgecv.measuring.flushing import flushing

BURST_MS = 3.0
LEAST_ROUNDS = 2 * SITTING_ROUNDS
MOST_ROUNDS = 15 * SITTING_ROUNDS
NARROW = 0.02  # half-width of a ratio's interval at which more rounds tell nothing new
SHARE = 0.35  # of the budget that is left, for one experiment

Files = Mapping[str, bytes]


@dataclass
class Trial:
    """A network under the clock (`sampling.Subject`).

    files, feeds: as for the engine's Session; flush: with subnormals taken as zero by the processor
    """

    name: str
    engine: str
    files: Files
    feeds: Mapping[str, np.ndarray]
    threads: int = 1
    flush: bool = False
    session: Session | None = None

    def open(self) -> Callable[[], Any]:
        """Load it anew; the function that runs it once."""
        before, self.session = (
            self.session,
            run_module(self.engine).Session(self.files, self.threads),
        )
        _close(before)
        run, feeds = self.session.run, self.feeds
        if not self.flush:
            return lambda: run(feeds)

        def flushed() -> None:
            with flushing():
                run(feeds)

        return flushed

    def close(self) -> None:
        """Free the engine's memory."""
        _close(self.session)
        self.session = None


@dataclass(frozen=True)
class Saving:
    """What mending wins of a call, in milliseconds: the median and its 95% interval.

    shipped_ms, mended_ms: of a call
    """

    ms: float
    low: float
    high: float
    shipped_ms: float
    mended_ms: float


@dataclass(frozen=True)
class Rounds:
    """What was measured in turns. ms: float (rounds, trials), of a call; sittings: int (rounds,)"""

    ms: np.ndarray
    sittings: np.ndarray

    def saving(self, shipped: np.ndarray, mended: np.ndarray) -> Saving:
        """Of two columns, or of what was computed from columns; float (rounds,), above 0."""
        logs = np.log(mended) - np.log(shipped)
        ratio = interval(logs, sittings=self.sittings).widened(DRIFT)
        base = float(np.median(shipped))
        low, high = base * (1.0 - ratio.high), base * (1.0 - ratio.low)
        return Saving(base * (1.0 - ratio.ratio), low, high, base, base * ratio.ratio)


class Clock:
    """Measures trials in turns until its budget is spent.

    budget_s: for all experiments together
    """

    def __init__(self, budget_s: float, seed: int = 0) -> None:
        self._end = time.monotonic() + budget_s
        self._seed, self._last_s = seed, 0.0
        self.spent = False  # whether something was not measured for want of time

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return max(0.0, self._end - time.monotonic())

    def rounds(self, trials: Sequence[Trial], share: float = SHARE) -> Rounds | None:
        """The trials measured in turns; None when too little of the budget is left.

        Goes on until the ratio of every trial to the first is known to NARROW, or a share of what
        is left of the budget is spent. Raises EdgecvError where a trial cannot be opened.
        """
        begin = time.monotonic()
        if self.left_s < 0.5 * self._last_s or self.left_s <= 0.0:
            self.spent = True
            return None
        end = begin + share * self.left_s
        sampler = Sampler(trials, BURST_MS, self._seed)
        try:
            while sampler.rounds < MOST_ROUNDS:
                sampler.sample(SITTING_ROUNDS)
                enough = sampler.rounds >= LEAST_ROUNDS or time.monotonic() > self._end
                if enough and (time.monotonic() > end or _narrow(sampler, len(trials))):
                    break
        finally:
            sampler.close()
            self._last_s = time.monotonic() - begin
        times = np.array([series.round_wall for series in sampler.series]).T / 1e6
        return Rounds(times, np.array(sampler.sitting_of))

    def saving(self, shipped: Trial, mended: Trial, share: float = SHARE) -> Saving | None:
        """What the mended graph wins; None when the budget is spent."""
        rounds = self.rounds([shipped, mended], share)
        return None if rounds is None else rounds.saving(rounds.ms[:, 0], rounds.ms[:, 1])


def _narrow(sampler: Sampler, trials: int) -> bool:
    return all(sampler.ratio(i).half_width <= NARROW for i in range(1, trials))


def _close(session: Session | None) -> None:
    if close := getattr(session, "close", None):
        close()
