"""One class of an image: the best of a row of scores.

    score = softmax(z) = exp(z - max z) / sum exp(z - max z),  or z itself where the network ends in
    probabilities already

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.runtime.answers import Prediction
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.placement import Placement
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.base import PICTURE_ALONE, Difference, Outputs, Parts, Score, Task

TOP = 10

# Prediction(...) goes through a Python-level __new__; this makes the same tuple in half the time
_new = tuple.__new__


class Best(NamedTuple):
    """The best classes, best first: index int64 (K,), scores float (K,)."""

    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index
    scores: np.ndarray


@dataclass(frozen=True)
class ClassificationTask(Task):
    """scores: what the first output holds, "logits" or "probabilities"."""

    name = "classification"
    metric = "top1"
    points = "top-1"
    truth = "index"
    asks = ("top",)
    best_class = True
    augments = PICTURE_ALONE

    scores: str = "logits"

    def manifest(self) -> dict[str, Any]:
        return {"scores": self.scores}

    @classmethod
    def knobs(cls) -> tuple[str, ...]:
        """None: what the output holds is told by its values (`scores_of`)."""
        return ()

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> ClassificationTask:
        return cls(manifest.get("scores", "logits"))

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],  # noqa: ARG003
        classes: int | None,  # noqa: ARG003
        said: Mapping[str, Any],
    ) -> ClassificationTask:
        first = outputs[0]
        if kinds([first])[first.name] != "classes":
            shape = "x".join(map(str, first.shape))
            raise UnsupportedError(
                "task classification",
                f"output {first.name!r} is {shape}, and classes are a row of scores (1, C)",
                "name another task, or leave --task out: tensors in, tensors out",
            )
        return cls(**said)

    def read(
        self,
        outputs: Outputs,
        lies: Placement,  # noqa: ARG002
        size: tuple[int, int],  # noqa: ARG002
        **asked: Any,
    ) -> Best:
        """asked: top, how many classes (10), None for all."""
        return self.row(next(iter(outputs.values())).reshape(-1), **asked)

    def row(self, z: np.ndarray, top: int | None = TOP) -> Best:
        """The best of z (classes,)."""
        best = best_of(z, top)
        if self.scores != "logits":
            return Best(best, z[best])
        powers = np.exp(z - z[best[0]])
        return Best(best, powers[best] / np.add.reduce(powers))

    def answer(self, read: Best, labels: Sequence[str]) -> list[Prediction]:
        pairs = zip(read.index.tolist(), read.scores.tolist(), strict=True)
        return [_new(Prediction, (i, labels[i], score)) for i, score in pairs]

    def to_json(self, read: Best, labels: Sequence[str]) -> list[dict[str, Any]]:
        return [p._asdict() for p in self.answer(read, labels)]

    def judging(self) -> Mapping[str, Any]:
        return {"top": 1}

    def drawn(self, image: np.ndarray, read: Best, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.classes(image, self.answer(read, labels))

    def score(self, reads: Iterable[Best], truth: np.ndarray, classes: Sequence[str]) -> Score:
        """top1: the share of images whose best class is the label. truth: int64 (N,)"""
        best = np.array([int(read.index[0]) for read in reads])
        correct = best == truth
        per_class = {
            name: float(correct[truth == i].mean()) if (truth == i).any() else None
            for i, name in enumerate(classes)
        }
        value = int(correct.sum()) / len(best)
        return Score(value, len(best), per_class, {}, {"correct": correct})

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        """McNemar's exact test on the images that only one of them has right."""
        from edgecv.tasks import paired

        return paired.of_right(before["correct"], after["correct"], alpha)


def best_of(z: np.ndarray, top: int | None) -> np.ndarray:
    """Indices of the `top` largest, largest first; of equals the lower index comes first."""
    if top is None or z.size <= 4 * top:
        return (-z).argsort(kind="stable")[:top]
    # Sorting a thousand classes costs more than all the rest of a call: sort the contenders.
    least = np.partition(z, z.size - top)[z.size - top]
    contenders = np.flatnonzero(z >= least)
    return contenders[(-z[contenders]).argsort(kind="stable")[:top]]


def scores_of(outputs: np.ndarray) -> str:
    """Whether rows (N, classes) are probabilities already."""
    summed = np.abs(outputs.sum(1) - 1.0).max() < 0.05
    return "probabilities" if summed and outputs.min() >= 0 else "logits"
