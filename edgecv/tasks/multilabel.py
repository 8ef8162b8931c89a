"""Multi-label classification: every class that is on an image, each with a score of its own.

    score(class) = 1 / (1 + exp(-z)),  or z itself where the network ends in probabilities already
    AP(class) = sum_n (R_n - R_{n-1}) P_n    over the scores, highest first; mAP is its mean

What is true of an image are its boxes, of which the classes alone are asked (VOC's classification,
Everingham et al., IJCV 88, 2010): a class that has only boxes that are `crowd` (VOC's difficult)
is not judged on that image. Or it is a row of a table, 0 or 1 for each class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from edgecv.errors import DataError, UnsupportedError
from edgecv.tasks.base import PICTURE_ALONE, Difference, Outputs, Parts, Score, Task
from edgecv.tasks.classification import Prediction

if TYPE_CHECKING:
    import torch

    from edgecv.data.annotations import Boxes, Numbers, PictureBoxes
    from edgecv.methods.training.plan import Plan
    from edgecv.runtime.placement import Placement
    from edgecv.runtime.spec import TensorSpec

    Own = PictureBoxes | np.ndarray  # what is true of one picture

SCORES = ("logits", "probabilities")
_SHOWN = 64  # replicates of the bootstrap at once


class Labels(NamedTuple):
    """The classes on an image, surest first: index int64 (K,), scores float32 (K,) in 0..1."""

    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index
    scores: np.ndarray


@dataclass(frozen=True)
class MultilabelTask(Task):
    """How a row of classes is read that do not exclude each other.

    scores:    what the output holds, "logits" or "probabilities"
    threshold: the least score of a class that is there, 0..1

    Raises ValueError: a value that it cannot have.
    """

    name: ClassVar[str] = "multilabel"
    metric: ClassVar[str] = "map"
    points: ClassVar[str] = "mAP"
    truth: ClassVar[str] = "Boxes"
    asks: ClassVar[tuple[str, ...]] = ("threshold",)
    figures: ClassVar[str] = "Precision, recall and F1: at the threshold, over all classes."
    answers: ClassVar[str] = "classes"
    rows: ClassVar[str] = "values"

    scores: str = "logits"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            raise ValueError(f"decode.scores {self.scores!r} is none of {', '.join(SCORES)}")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"decode.threshold {self.threshold!r} is wrong: 0 to 1")

    @classmethod
    def truths(cls) -> tuple[str, ...]:
        return ("Boxes", "Numbers")

    @classmethod
    def of_ends(cls, outputs: Sequence[TensorSpec], sigmoid: Collection[str]) -> dict[str, Any]:
        return {"scores": "probabilities"} if outputs[0].name in sigmoid else {}

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],  # noqa: ARG003
        classes: int | None,
        said: Mapping[str, Any],
    ) -> MultilabelTask:
        shape = outputs[0].shape
        rest = all(n == 1 for n in (*shape[:1], *shape[2:]))
        if len(shape) < 2 or not rest or classes not in (None, shape[1]):
            found, expected = "x".join(map(str, shape)), f"a row of scores 1x{classes or 'C'}"
            raise UnsupportedError("task multilabel", f"output {outputs[0].name} is {found}, "
                                   f"expected {expected}", "name another task")  # fmt: skip
        return cls.of_said(said)

    def read(
        self,
        outputs: Outputs,
        lies: Placement,  # noqa: ARG002
        size: tuple[int, int],  # noqa: ARG002
        **asked: Any,
    ) -> Labels:
        """asked: threshold. A score that is NaN is no class."""
        z = next(iter(outputs.values())).reshape(-1).astype(np.float32)
        with np.errstate(over="ignore"):
            p = 1.0 / (1.0 + np.exp(-z)) if self.scores == "logits" else z
        least = asked.get("threshold")
        index = np.flatnonzero(p >= (self.threshold if least is None else least))
        index = index[(-p[index]).argsort(kind="stable")]
        return Labels(index, p[index])

    def answer(self, read: Labels, labels: Sequence[str]) -> list[Prediction]:
        pairs = zip(read.index.tolist(), read.scores.tolist(), strict=True)
        return [Prediction(i, labels[i] if i < len(labels) else str(i), s) for i, s in pairs]

    def to_json(self, read: Labels, labels: Sequence[str]) -> list[dict[str, Any]]:
        return [p._asdict() for p in self.answer(read, labels)]

    # --- on the host

    def judging(self) -> Mapping[str, Any]:
        return {"threshold": 0.0}

    def score(
        self, reads: Iterable[Labels], truth: Boxes | Numbers, classes: Sequence[str]
    ) -> Score:
        """mAP, AP of each class; precision, recall and F1 at the threshold, all classes together.

        Raises DataError: not as many reads as images, or no image has a class.
        """
        said = np.zeros((len(truth), len(classes)), np.float32)
        count = 0
        for i, read in enumerate(reads):
            count += 1
            if i < len(said):
                said[i, read.index[read.index < len(classes)]] = read.scores[
                    read.index < len(classes)
                ]
        if count != len(truth):
            raise DataError("multilabel", f"{count} answers for {len(truth)} images")
        there, known = _of_pictures([truth[i] for i in range(len(truth))], len(classes))
        if not there.any():
            raise DataError("multilabel", "no image has a class: there is nothing to be judged by")
        parts = {"said": said, "there": there, "known": known}
        once = np.ones((len(said), 1))
        each = [_precision(parts, k, once)[0] for k in range(len(classes))]
        per_class = {
            n: None if np.isnan(v) else float(v) for n, v in zip(classes, each, strict=True)
        }
        called = (said >= self.threshold) & known
        right = int((called & there).sum())
        more = {"precision": right / max(1, int(called.sum())), "recall": right / int(there.sum()),
                "f1": 2 * right / int(called.sum() + there.sum())}  # fmt: skip
        return Score(float(value_of(parts, once)[0]), len(said), per_class, more, parts)

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        """The drop of mAP, by the paired bootstrap over images."""
        from edgecv.tasks import paired

        if not all(np.array_equal(before[k], after[k]) for k in ("there", "known")):
            raise ValueError("measured on different test images")
        return paired.difference(value_of, before, after, len(before["there"]), alpha)

    def interval(self, parts: Parts, alpha: float) -> tuple[float, float]:
        from edgecv.tasks import paired

        return paired.interval(value_of, parts, len(parts["there"]), alpha)

    def same(self, before: Labels, after: Labels) -> tuple[int, int]:
        """Classes said to be there by both, and by either."""
        one, two = set(before.index.tolist()), set(after.index.tolist())
        return len(one & two), len(one | two)

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        if truths and isinstance(truths[0], np.ndarray):  # they lie nowhere in the picture
            from edgecv.errors import StageError
            from edgecv.tasks import augment

            if unread := [k for k in self.augments if k not in PICTURE_ALONE and getattr(plan, k)]:
                what = f"{unread[0]} is not read where labels are a table's"
                raise StageError(
                    "multilabel", what, f"leave it out; {', '.join(PICTURE_ALONE)} are"
                )
            return augment.augmented(pixels, plan, rng), truths
        from edgecv.tasks.detection import augment as of_boxes

        return of_boxes.augmented(pixels, truths, plan, rng)

    def loss(self, outputs: Any, truths: Sequence[Own]) -> torch.Tensor:
        """Binary cross-entropy, the mean over images and the classes that are judged there.

        outputs: (N, C), logits or probabilities as `scores` says. Raises ModelError.
        """
        import torch

        from edgecv.errors import ModelError
        from edgecv.tasks.probabilities import cross_entropy

        if not isinstance(outputs, torch.Tensor) or outputs.shape[:1] != (len(truths),):
            raise ModelError("multilabel loss", f"outputs are no rows for {len(truths)} images")
        z = outputs.flatten(1)
        most = max(map(_last, truths), default=0)
        if most >= z.shape[1]:
            what = f"an image has class {most} and the network {z.shape[1]} classes"
            raise ModelError("multilabel loss", what, "give the builder the data's class count")
        there, known = (torch.from_numpy(v) for v in _of_pictures(truths, z.shape[1]))
        return cross_entropy("multilabel loss", z, there.to(z), self.scores, known.to(z))

    def drawn(self, image: np.ndarray, read: Labels, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.classes(image, self.answer(read, labels))


def _last(own: Own) -> int:
    """The last class that is said of a picture."""
    return len(own) - 1 if isinstance(own, np.ndarray) else int(own.index.max(initial=0))


def _of_pictures(truths: Sequence[Own], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """bool (N, C): which class is on which image, and where that can be judged.

    Raises DataError: a number of a table that is neither 0 nor 1.
    """
    there, unsure = np.zeros((2, len(truths), classes), bool)
    for i, own in enumerate(truths):
        if isinstance(own, np.ndarray):
            known = np.isfinite(own)
            if not np.isin(own[known], (0, 1)).all():
                odd = own[known][~np.isin(own[known], (0, 1))][0]
                what = f"a class is {odd:g} on image {i}: neither 0 nor 1"
                raise DataError("multilabel", what, "numbers that are no classes: task regression")
            there[i, : len(own)], unsure[i, : len(own)] = own == 1, ~known
            continue
        there[i, own.index[~own.crowd]] = True
        unsure[i, own.index[own.crowd]] = True
    return there, there | ~unsure


def value_of(parts: Parts, weights: np.ndarray) -> np.ndarray:
    """mAP of the images taken so many times each, float64 (R,), over the classes that they have.

    weights: (N, R), how often each image counts in each of R draws
    """
    weights = np.asarray(weights, np.float64)
    out = np.zeros(weights.shape[1])
    for at in range(0, len(out), _SHOWN):
        draws = weights[:, at : at + _SHOWN]
        each = np.array([_precision(parts, k, draws) for k in range(parts["there"].shape[1])])
        count = (~np.isnan(each)).sum(0)
        out[at : at + _SHOWN] = np.nansum(each, 0) / np.maximum(count, 1)
    return out


def _precision(parts: Parts, k: int, weights: np.ndarray) -> np.ndarray:
    """AP of class k, float64 (R,); NaN in a draw that does not have it. Equal scores are one."""
    rows = np.flatnonzero(parts["known"][:, k])
    rows = rows[(-parts["said"][rows, k]).argsort(kind="stable")]
    score, there = parts["said"][rows, k], parts["there"][rows, k]
    if not there.any():
        return np.full(weights.shape[1], np.nan)
    times = weights[rows]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # of equal scores
    said, right = times.cumsum(0)[last], (times * there[:, None]).cumsum(0)[last]
    gained = np.diff(right, axis=0, prepend=0)
    total = right[-1]
    with np.errstate(invalid="ignore"):
        return (gained * right / np.maximum(said, 1.0)).sum(0) / np.where(total > 0, total, np.nan)
