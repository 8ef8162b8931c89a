"""Yes or no: whether an image is of the second of two classes, by one number.

    p = 1 / (1 + exp(-z)),  or z itself where the network ends in a probability already
    yes where p >= threshold

The first name stands for no (class 0), the second for yes (class 1). The metric is accuracy at the
threshold that is deployed. Beside it stand two figures that no threshold moves: average precision
and the area under the ROC curve (Fawcett, "An introduction to ROC analysis", 2006).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from edgecv.errors import DataError, UnsupportedError
from edgecv.runtime.answers import Prediction
from edgecv.tasks.base import PICTURE_ALONE, Difference, Outputs, Parts, Score, Task

if TYPE_CHECKING:
    import torch

    from edgecv.methods.training.plan import Plan
    from edgecv.runtime.placement import Placement
    from edgecv.runtime.spec import TensorSpec

SCORES = ("logits", "probabilities")
_WHERE = "task binary"


class Decision(NamedTuple):
    """yes: whether it is of class 1; p: how probable that is, 0..1; nan: 1 where the network said
    NaN, which is taken for no."""

    yes: bool
    p: float
    nan: int = 0


@dataclass(frozen=True)
class BinaryTask(Task):
    """How one number is read.

    scores:    what the output holds, "logits" or "probabilities"
    threshold: the least probability of yes, 0..1

    Raises ValueError: a value that it cannot have.
    """

    name: ClassVar[str] = "binary"
    metric: ClassVar[str] = "accuracy"
    points: ClassVar[str] = "accuracy"
    truth: ClassVar[str] = "index"
    asks: ClassVar[tuple[str, ...]] = ("threshold",)
    rows: ClassVar[str] = "values"
    figures: ClassVar[str] = "Average precision and AUC: over all thresholds, of the second class."
    answers: ClassVar[str] = "answers"
    augments: ClassVar[tuple[str, ...]] = PICTURE_ALONE

    scores: str = "logits"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            raise ValueError(f"decode.scores {self.scores!r} is none of {', '.join(SCORES)}")
        if type(self.threshold) not in (int, float) or not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"decode.threshold {self.threshold!r} is wrong: 0 to 1")

    @classmethod
    def width(cls, classes: int) -> int:  # noqa: ARG003
        return 1

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],  # noqa: ARG003
        classes: int | None,
        said: Mapping[str, Any],
    ) -> BinaryTask:
        if classes not in (None, 2):
            what = f"there are {classes} classes, and yes or no are two"
            raise UnsupportedError(_WHERE, what, "task classification is of several")
        one = [o for o in outputs if int(np.prod(o.shape)) == 1]
        if len(one) != 1 or one[0] is not outputs[0]:
            seen = ", ".join(f"{o.name} {'x'.join(map(str, o.shape))}" for o in outputs)
            hint = "two scores are of task classification" if len(outputs) == 1 else "--output NAME"
            raise UnsupportedError(_WHERE, f"outputs {seen}, expected one number, 1x1", hint)
        return cls.of_said(said)

    @classmethod
    def of_ends(cls, outputs: Sequence[TensorSpec], sigmoid: Collection[str]) -> dict[str, Any]:
        return {"scores": "probabilities"} if outputs[0].name in sigmoid else {}

    # --- on devices too

    def read(
        self,
        outputs: Outputs,
        lies: Placement,  # noqa: ARG002
        size: tuple[int, int],  # noqa: ARG002
        **asked: Any,
    ) -> Decision:
        """asked: threshold."""
        z = float(next(iter(outputs.values())).reshape(-1)[0])
        if np.isnan(z):
            return Decision(False, 0.0, 1)
        # -z within what exp() can hold: beyond it p is 0 or 1 in any case
        p = 1.0 / (1.0 + float(np.exp(np.clip(-z, -700, 700)))) if self.scores == "logits" else z
        least = asked.get("threshold")
        return Decision(p >= (self.threshold if least is None else least), p)

    def answer(self, read: Decision, labels: Sequence[str]) -> list[Prediction]:
        """Both classes with their probabilities, the one that is said first."""
        order = (1, 0) if read.yes else (0, 1)
        return [
            Prediction(i, labels[i] if i < len(labels) else str(i), read.p if i else 1.0 - read.p)
            for i in order
        ]

    def to_json(self, read: Decision, labels: Sequence[str]) -> list[dict[str, Any]]:
        return [p._asdict() for p in self.answer(read, labels)]

    # --- on the host

    def score(self, reads: Iterable[Decision], truth: Any, classes: Sequence[str]) -> Score:
        """truth: int64 (N,), 0 or 1. The parts are which images are right.

        Raises DataError: not as many answers as images, or other classes than two.
        """
        found = list(reads)
        there = np.asarray(truth) == 1
        if len(found) != len(there):
            raise DataError(_WHERE, f"{len(found)} answers for {len(there)} images")
        if len(classes) != 2:
            what = f"the data has {len(classes)} classes, and yes or no are two"
            raise DataError(_WHERE, what, "two folders, of which the second is yes")
        p, right = np.array([r.p for r in found]), np.array([r.yes for r in found]) == there
        per_class = {
            name: float(right[there == bool(k)].mean()) if (there == bool(k)).any() else None
            for k, name in enumerate(classes)
        }
        more = {}
        if 0 < there.sum() < len(there):
            more = {"average_precision": average_precision(p, there), "auc": area(p, there)}
        return Score(float(right.mean()), len(found), per_class, more, {"correct": right})

    def doubts(self, score: Score) -> Sequence[str]:
        """One sentence where every image got the same answer."""
        each = {value: name for name, value in score.per_class.items()}
        if each.keys() != {0.0, 1.0}:
            return ()
        return (f"the network says {each[1.0]} of every image: is it trained, and are resize, mean "
                "and std as in training?",)  # fmt: skip

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        """McNemar's exact test on the images that only one of them has right."""
        from edgecv.tasks import paired

        return paired.of_right(before["correct"], after["correct"], alpha)

    def interval(self, parts: Parts, alpha: float) -> tuple[float, float]:
        from edgecv.tasks import paired

        return paired.share_of_right(parts["correct"], alpha)

    def same(self, before: Decision, after: Decision) -> tuple[int, int]:
        """Whether both say yes, or both no."""
        return int(before.yes == after.yes), 1

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        from edgecv.tasks import augment

        return augment.augmented(pixels, plan, rng), truths

    def loss(self, outputs: Any, truths: Sequence[Any]) -> torch.Tensor:
        """Binary cross-entropy, the mean over images.

        outputs: (N, 1), as `scores` says; truths: of each image 0 or 1. Raises ModelError.
        """
        import torch

        from edgecv.errors import ModelError
        from edgecv.tasks.probabilities import cross_entropy

        if not isinstance(outputs, torch.Tensor) or outputs.numel() != len(truths):
            shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
            raise ModelError("binary loss", f"outputs are {shape}, not {len(truths)} numbers")
        z = outputs.flatten()
        wanted = torch.as_tensor(np.asarray(truths, np.float32)).to(z)
        return cross_entropy("binary loss", z, wanted, self.scores)

    def drawn(self, image: np.ndarray, read: Decision, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.classes(image, self.answer(read, labels)[:1])


def average_precision(p: np.ndarray, there: np.ndarray) -> float:
    """Σ (R_n - R_{n-1}) P_n over the scores, highest first; equal scores are one step."""
    order = np.argsort(-p, kind="stable")
    p, there = p[order], there[order]
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))
    right = there.cumsum()[last]
    return float((np.diff(right, prepend=0) * right / (last + 1)).sum() / right[-1])


def area(p: np.ndarray, there: np.ndarray) -> float:
    """Under the ROC curve: how often an image of class 1 has the higher score than one of class 0,
    equal ones counted half (Mann & Whitney, 1947)."""
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts - 1) / 2.0
    yes = int(there.sum())
    won = ranks[place][there].sum() - yes * (yes + 1) / 2.0
    return float(won / (yes * (len(there) - yes)))
