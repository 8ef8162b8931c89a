"""Interleaved sampling: subjects take turns in random order, so that drift hits them alike.

    round     every subject gets one burst of calls, in random order
    sitting   some rounds; each sitting opens every subject anew

A burst's median is one figure; the ratio of two subjects is taken round by round. Where a network's
buffers come to lie in memory moves its time by a percent or more and stays for as long as it is
open: sittings turn that from a bias into noise that averages out.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import gc
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgecv.benchmark.sensors import energy_uj
from edgecv.benchmark.statistics import LEVEL, Interval, interval, standard_error

BURST_MS = 5.0
SITTING_ROUNDS = 4
# Opening takes at most this much of the time spent in rounds; slow openers sit longer.
OPENING_SHARE = 2.0
MOST_CALLS = 20_000  # in one burst
# What the ratio of two networks moves by (standard, of the log) from one stretch of seconds to the
# next on a machine that others use: they feel the others differently, and no number of rounds
# within a stretch shows it. Seen in benchmarks/gate_error_rates.py; part of every interval.
DRIFT = 0.003


class Subject(Protocol):
    """Something whose time is measured."""

    name: str

    def open(self) -> Callable[[], Any]:
        """Load it; the function that runs it once. Called again for every sitting."""

    def close(self) -> None:
        """Free what the last `open` took."""


@dataclass
class Series:
    """What was measured of one subject. Times in nanoseconds, energy in microjoules.

    wall:       of every call
    round_wall: the median call of each round; round_cpu, round_energy: per call of each round
    """

    subject: Subject
    call: Callable[[], Any] = lambda: None
    burst: int = 1
    warmup: int = 0
    wall: array[int] = field(default_factory=lambda: array("q"))
    round_wall: list[float] = field(default_factory=list)
    round_cpu: list[float] = field(default_factory=list)
    round_energy: list[float] = field(default_factory=list)


class Sampler:
    """Measures subjects round by round, for as long as its user goes on asking.

    burst_ms: one subject's turn in a round, in milliseconds of its own calls
    seed:     of the order of turns
    """

    def __init__(
        self, subjects: Sequence[Subject], burst_ms: float = BURST_MS, seed: int = 0
    ) -> None:
        self.series = [Series(subject) for subject in subjects]
        self.burst_ms = burst_ms
        self.sitting_of: list[int] = []  # which sitting each round was in
        self.sittings = 0
        self._random = random.Random(seed)
        self._since_sitting = 0
        self._opening_s = self._rounds_s = 0.0

    def sample(self, rounds: int) -> None:
        """Measure that many rounds more. Raises EdgecvError where a subject cannot be opened."""
        for _ in range(rounds):
            if self._due():
                self._sit()
            begin = time.perf_counter()
            for series in self._shuffled():
                _burst(series)
            self._rounds_s += time.perf_counter() - begin
            self._since_sitting += 1
            self.sitting_of.append(self.sittings)

    @property
    def rounds(self) -> int:
        return len(self.sitting_of)

    def ratio(
        self, subject: int, against: int = 0, level: float = LEVEL, cpu: bool = False
    ) -> Interval:
        """The ratio of two subjects' times, with its interval, DRIFT included."""
        logs = self.logs(subject, against, cpu)
        return interval(logs, level, np.array(self.sitting_of)).widened(DRIFT * bool(logs.any()))

    def error(self, subject: int, against: int = 0) -> float:
        """Standard error of the log of that ratio."""
        return standard_error(self.logs(subject, against), np.array(self.sitting_of))

    def logs(self, subject: int, against: int = 0, cpu: bool = False) -> np.ndarray:
        """log(time of subject / time of against), round by round; float (rounds,)."""
        a, b = self.series[subject], self.series[against]
        over, under = (a.round_cpu, b.round_cpu) if cpu else (a.round_wall, b.round_wall)
        return np.log(np.maximum(over, 1.0)) - np.log(np.maximum(under, 1.0))

    def close(self) -> None:
        """Close every subject."""
        for series in self.series:
            series.subject.close()
            series.call = _closed

    def _due(self) -> bool:
        if not self.sittings:
            return True
        long_enough = self._rounds_s * OPENING_SHARE >= self._opening_s
        return self._since_sitting >= SITTING_ROUNDS and long_enough

    def _sit(self) -> None:
        """Open every subject anew, one after the other in random order, and warm it up."""
        begin = time.perf_counter()
        for series in self._shuffled():
            series.call = series.subject.open()
            calls, steady_ns = warm_up(series.call)
            series.warmup += calls
            if not self.sittings:
                wanted = round(self.burst_ms * 1e6 / max(1.0, steady_ns))
                series.burst = min(MOST_CALLS, max(1, wanted))
        self._opening_s = time.perf_counter() - begin
        self._rounds_s, self._since_sitting = 0.0, 0
        self.sittings += 1

    def _shuffled(self) -> list[Series]:
        return self._random.sample(self.series, len(self.series))


def warm_up(call: Callable[[], Any], most_s: float = 2.0) -> tuple[int, float]:
    """Call until it no longer gets faster; (calls made, median of the last ones in ns).

    The median of a window of calls is compared with the window before: steady is when it is not
    3% faster, twice in a row. A window is 3 calls, or as many as fit into 2 ms.
    """
    clock, times = time.perf_counter_ns, []
    start, before, calm = clock(), float("inf"), 0
    while True:
        window: list[int] = []
        opened = clock()
        while len(window) < 3 or (clock() - opened < 2_000_000 and len(window) < 1000):
            begin = clock()
            call()
            window.append(clock() - begin)
        times += window
        now = float(np.median(window))
        calm = calm + 1 if now > 0.97 * before else 0
        before = now
        if calm >= 2 or clock() - start > most_s * 1e9:
            return len(times), now


def _burst(series: Series) -> None:
    call, clock, walls = series.call, time.perf_counter_ns, array("q")
    if series.burst > 1:
        call()  # the caches hold the subject before: let this one settle in
    collecting = gc.isenabled()
    gc.disable()
    try:
        energy = energy_uj()
        cpu = time.process_time_ns()
        for _ in range(series.burst):
            begin = clock()
            call()
            walls.append(clock() - begin)
        cpu = time.process_time_ns() - cpu
        after = energy_uj()
    finally:
        if collecting:
            gc.enable()
    series.wall += walls
    series.round_wall.append(float(np.median(walls)))
    series.round_cpu.append(cpu / series.burst)
    if energy is not None and after is not None and after >= energy:  # the counter wraps
        series.round_energy.append((after - energy) / series.burst)


def _closed() -> None:
    raise RuntimeError("the subject was closed")
