"""How many objects are on an image: one number, right where it rounds to how many there are."""

# ruff: noqa: ARG002, ARG003 - what other tasks need and this one does not
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.tasks.base import Difference, Parts, Score, Task


@dataclass(frozen=True)
class CountingTask(Task):
    """unit: what the output counts by."""

    name: ClassVar[str] = "counting"
    metric: ClassVar[str] = "counted"
    points: ClassVar[str] = "counts"
    truth: ClassVar[str] = "Boxes"
    asks: ClassVar[tuple[str, ...]] = ("unit",)

    unit: float = 1.0

    @classmethod
    def of_graph(
        cls, outputs: Sequence[Any], size: Any, classes: Any, said: Mapping[str, Any]
    ) -> CountingTask:
        if len(outputs) != 1 or int(np.prod(outputs[0].shape)) != 1:
            raise UnsupportedError("task counting", "the network says more than one number")
        return cls(**said)

    def read(self, outputs: Any, lies: Any, size: Any, **asked: Any) -> float:
        (number,) = np.asarray(next(iter(outputs.values()))).reshape(-1).tolist()
        return float(number) * (asked.get("unit") or self.unit)

    def answer(self, read: float, labels: Sequence[str]) -> float:
        return read

    def to_json(self, read: float, labels: Sequence[str]) -> dict[str, float]:
        return {"count": read}

    def score(self, reads: Iterable[float], truth: Any, classes: Sequence[str]) -> Score:
        said = np.rint(np.array([*reads]))
        right = said == np.array([len(truth[i]) for i in range(len(truth))])
        return Score(float(right.mean()), len(right), parts={"right": right})

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        from edgecv.tasks import paired

        def value(parts: Parts, times: np.ndarray) -> np.ndarray:
            return np.asarray(parts["right"] @ times / times.sum(0))

        return paired.difference(value, before, after, len(before["right"]), alpha)

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Any, rng: Any
    ) -> tuple[np.ndarray, Sequence[Any]]:
        return pixels, truths

    def loss(self, outputs: Any, truths: Sequence[Any]) -> Any:
        wanted = outputs.new_tensor([len(t) for t in truths])
        return (outputs.flatten() * self.unit - wanted).square().mean()

    def drawn(self, image: np.ndarray, read: float, labels: Sequence[str]) -> np.ndarray:
        made = image.copy()
        made[:4, : 4 * max(0, round(read))] = 255
        return made
