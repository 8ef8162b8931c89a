"""What may be said of two things that were measured in turns, and how surely.

    ratio     = exp(median_i d_i),   d_i = log(t_i / b_i) of round i
    interval  = percentiles of the same over rounds drawn again with replacement (bootstrap)
    McNemar   p = 2 P(X <= min(b, c)),  X ~ Binomial(b + c, 1/2)
    Wilson    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)

Pairing by round takes the machine's drift out; the median leaves out the rounds that something else
fell into. Sources: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; McNemar,
Psychometrika 12, 1947 (exact form); Wilson, J. Am. Stat. Assoc. 22, 1927; Pocock, Biometrika 64,
1977, on looking more than once.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95  # two-sided, of the intervals that are shown
RESAMPLES = 2000
Z95 = 1.959964  # deviations of a normal that hold 95% of it, on each side
BOOTSTRAP_CELLS = 1_000_000  # rounds times draws that are held at once
LEAST_SITTINGS = 6  # with fewer, rounds are drawn


@dataclass(frozen=True)
class Interval:
    """A ratio with what it may be at a two-sided confidence level. 1.0 is "equal"."""

    ratio: float
    low: float
    high: float
    level: float = LEVEL

    def widened(self, error: float) -> Interval:
        """The same with an independent error (standard, of the log ratio) added to it."""
        z = NormalDist().inv_cdf(0.5 + self.level / 2.0) * error
        if self.low == 0.0:  # nothing is known
            return self
        low = math.hypot(math.log(self.ratio / self.low), z)
        high = math.hypot(math.log(self.high / self.ratio), z)
        return Interval(
            self.ratio, self.ratio * math.exp(-low), self.ratio * _exp(high), self.level
        )

    @property
    def half_width(self) -> float:
        """Relative: 0.01 is one percent up or down."""
        return math.sqrt(self.high / self.low) - 1.0 if self.low else math.inf

    def to_json(self) -> list[float]:
        return [self.low, self.high]


def interval(
    logs: np.ndarray,
    level: float = LEVEL,
    sittings: np.ndarray | None = None,
    seed: int = 0,
) -> Interval:
    """The bootstrap interval of exp(median(logs)).

    logs:     float (rounds,), the log ratio of every round
    sittings: int (rounds,), which sitting each round belongs to. Rounds of one sitting share how
              memory came to lie, so sittings are drawn, not rounds, when there are enough of them;
              few draws are too alike, for which Student's t makes up
    The same logs give the same interval.
    """
    logs = np.asarray(logs, np.float64)
    middle = float(np.median(logs))
    if len(logs) < 2 or np.ptp(logs) == 0.0:
        wide = 0.0 if len(logs) > 1 else math.inf
        return Interval(math.exp(middle), math.exp(middle - wide), _exp(middle + wide), level)
    groups = _groups(len(logs), sittings)
    medians = bootstrap_medians(logs, groups, seed)
    tail = (1.0 - level) / 2.0
    low, high = (float(v) for v in np.quantile(medians, (tail, 1.0 - tail)))
    wider = _small_sample(int(groups.max()) + 1, 1.0 - tail)
    return Interval(
        math.exp(middle),
        math.exp(middle + wider * (low - middle)),
        _exp(middle + wider * (high - middle)),
        level,
    )


def bootstrap_medians(
    logs: np.ndarray, groups: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> np.ndarray:
    """Medians of `resamples` draws of whole groups with replacement; float (resamples,).

    groups: int (rounds,), 0..n-1: the group of each round
    """
    rng = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    order = np.argsort(logs)
    ordered, places = logs[order], groups[order]
    medians = []
    at_once = max(1, BOOTSTRAP_CELLS // len(logs))  # long measurements have 100,000 rounds
    for first in range(0, resamples, at_once):
        size = min(at_once, resamples - first)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size)
        # How often each round is there, in the order of its value: the median is where half of
        # them is reached.
        reached = np.cumsum(drawn[:, places], axis=1, dtype=np.int32)
        half = reached[:, -1:] / 2.0
        lower, upper = (reached < half).sum(axis=1), (reached <= half).sum(axis=1)
        medians.append(ordered[lower] + ordered[np.minimum(upper, len(logs) - 1)])
    return np.concatenate(medians) / 2.0


def standard_error(logs: np.ndarray, sittings: np.ndarray | None = None, seed: int = 0) -> float:
    """Of median(logs), by bootstrap; of the log ratio, so 0.01 is about one percent."""
    if len(logs) < 2:
        return math.inf
    groups = _groups(len(logs), sittings)
    medians = bootstrap_medians(np.asarray(logs, np.float64), groups, seed)
    count = int(groups.max()) + 1
    return float(medians.std()) * math.sqrt(count / (count - 1))


def _groups(rounds: int, sittings: np.ndarray | None) -> np.ndarray:
    """0..n-1 for each round: its sitting, or itself where there are too few sittings to draw."""
    if sittings is not None:
        found, groups = np.unique(sittings, return_inverse=True)
        if len(found) >= LEAST_SITTINGS:
            return groups
    return np.arange(rounds)


def _small_sample(count: int, probability: float) -> float:
    """How much wider an interval from `count` draws is to be: Student's t over the normal, and the
    bootstrap's own bias (Cornish-Fisher expansion; Hill, CACM 13, 1970)."""
    z, v = NormalDist().inv_cdf(probability), count - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)
    return t / z * math.sqrt(count / v)


def normal_interval(log_ratio: float, error: float, level: float = LEVEL) -> Interval:
    """exp(log_ratio +- z error): for a ratio of two measurements that were not taken in turns."""
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    return Interval(
        math.exp(log_ratio), math.exp(log_ratio - z * error), _exp(log_ratio + z * error), level
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p that two classifiers err equally often.

    only_a, only_b: images that only the one, only the other got right.
    """
    n = only_a + only_b
    if n == 0:
        return 1.0
    return min(1.0, 2.0 * _binomial_tail(min(only_a, only_b), n))


def drop_p(only_before: int, only_after: int) -> float:
    """One-sided exact p that nothing got worse: P(X >= only_before), X ~ Binomial(n, 1/2).

    only_before: images that only the network before got right; only_after: only the one after.
    """
    return _binomial_tail(only_after, only_before + only_after)


def _binomial_tail(k: int, n: int) -> float:
    """P(X <= k), X ~ Binomial(n, 1/2), by logarithms: n may be tens of thousands."""
    if k >= n:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2.0)
        for i in range(k + 1)
    ]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(v - top) for v in logs))


def paired_drop(
    before: np.ndarray, after: np.ndarray, level: float = LEVEL, seed: int = 0
) -> tuple[float, float, float]:
    """(drop, low, high) of the share of right answers, paired bootstrap, in 0..1; a loss is > 0.

    before, after: bool (images,), whether each image was answered rightly
    """
    n = len(before)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    # Redrawing images is redrawing how many of them were lost, won and neither.
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, [lost / n, won / n, max(0.0, 1 - (lost + won) / n)], RESAMPLES)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, (tail, 1.0 - tail))
    return (lost - won) / n, float(low), float(high)


def images_to_settle(before: np.ndarray, after: np.ndarray, alpha: float) -> int:
    """About how many images would show the drop seen here at a one-sided level alpha."""
    n = len(before)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    if lost <= won:
        return n
    z = NormalDist().inv_cdf(1.0 - alpha)
    wanted = math.ceil(n * z * z * (lost + won) / (lost - won) ** 2)
    # For few images the exact test asks for more than the normal approximation does.
    return wanted if drop_p(lost, won) < alpha else max(wanted, n + 1)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def wilson(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share of `total` images, in 0..1. z: how many deviations wide, on a side"""
    if total <= 0:
        return 0.0, 1.0
    p, z2 = right / total, z * z
    middle = p + z2 / (2 * total)
    wide = z * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    return max(0.0, (middle - wide) / scale), min(1.0, (middle + wide) / scale)
