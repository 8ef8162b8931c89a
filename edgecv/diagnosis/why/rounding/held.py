"""What tensors hold on images, in float: extremes by image and by channel, moments, and a sample of
the values for their percentiles. Memory holds one image's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

PLACES = 4096  # values of a tensor that are kept of each image, evenly spread


@dataclass
class Held:
    """lows, highs: of each image. low, high, total, square: (C,) by channel, over all images;
    count: values of each. some: values, (images, at most PLACES)"""

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    square: np.ndarray = field(default_factory=lambda: np.zeros(0))
    count: int = 0
    some: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """One image's: (1, C, ...), or of another shape, whose channel is one."""
        rows = values.reshape(values.shape[1] if values.ndim > 2 else 1, -1).astype(np.float64)
        low, high = rows.min(1), rows.max(1)
        if not self.lows:
            self.low, self.high = low, high
            self.total, self.square = np.zeros(len(rows)), np.zeros(len(rows))
        self.lows.append(float(low.min()))
        self.highs.append(float(high.max()))
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.total += rows.sum(1)
        self.square += np.square(rows).sum(1)
        self.count += rows.shape[1]
        flat = values.reshape(-1)
        self.some.append(flat[:: max(1, len(flat) // PLACES)][:PLACES].astype(np.float32))

    @property
    def least(self) -> float:
        """Of all images."""
        return min(self.lows)

    @property
    def largest(self) -> float:
        """Of all images."""
        return max(self.highs)

    @property
    def reach(self) -> np.ndarray:
        """(C,): the largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def variance(self) -> np.ndarray:
        """(C,)"""
        return np.maximum(self.square / self.count - np.square(self.total / self.count), 0.0)

    def percentile(self, share: float) -> float:
        """The value below which that many percent lie."""
        return float(np.percentile(np.concatenate(self.some), share))

    def noise(self, step: float, low: float, high: float) -> float:
        """The mean over channels of what rounding and clipping to a grid add, in shares of what
        varies there, at most 1 each."""
        alive = self.variance[self.variance > 0.0]
        if not len(alive):
            return 0.0
        values = np.concatenate(self.some).astype(np.float64)
        lost = float(np.square(values - np.clip(values, low, high)).mean() / alive.mean())
        return float(np.minimum(step**2 / 12 / alive, 1.0).mean()) + lost

    def sizes(self) -> np.ndarray:
        """(images,): the largest magnitude of each."""
        return np.maximum(np.abs(self.lows), np.abs(self.highs))


def held(found: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Held]:
    """By tensor, of every image's values by tensor."""
    made: dict[str, Held] = {}
    for values in found:
        for name, value in values.items():
            made.setdefault(name, Held()).add(value)
    return made
