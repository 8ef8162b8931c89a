"""How faithful a network's answers are to its float self by the task's own metric, without labels.

    fidelity = metric(what the network says | what the float network says of the same images)

What the float network finds (boxes that reach the task's confidence, the class of each pixel) is
taken for the truth (`Task.told_by`), and the metric is the task's own (`Task.score`): mAP, mIoU,
0..1; the float network itself has 1. SQNR of raw outputs counts every number alike: of a detector's
thousands of places all but a few are empty, and boxes are pixels beside probabilities.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv import tasks
from edgecv.bundling.inference import Answers
from edgecv.bundling.task_score import graph_task
from edgecv.errors import EdgecvError
from edgecv.graph import Graph
from edgecv.runtime.placement import Placement
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, batch_of
from edgecv.tasks.base import Task

if TYPE_CHECKING:
    from edgecv.context import Context

log = logging.getLogger(__name__)

FAITHFUL = 0.85  # of the metric: YOLOX-nano's variants above it lost 1 mAP, those below 0.6 lost 8
# A few images, or a few boxes on them, are kept by chance: SQNR tells more than they do.
LEAST_IMAGES, LEAST_BOXES = 8, 16


@dataclass(frozen=True)
class TaskFidelity:
    """The metric of any network's answers to some images, where the float network's are the truth.

    outputs: as the task reads them (`Graph.shown`). truth: as `Task.score` takes it
    """

    task: Task
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    truth: Any
    classes: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether there is so much to keep that keeping it says something."""
        boxes = getattr(self.truth, "boxes", None)
        return len(self.truth) >= LEAST_IMAGES and (boxes is None or len(boxes) >= LEAST_BOXES)

    @staticmethod
    def of(source: Graph, answers: Answers, context: Context) -> TaskFidelity | None:
        """answers: of the float graph `source`, each output (N, ...), real values, channels first.

        None where labels are classes or nobody says how outputs are read, where the task tells no
        truth, and where the network finds next to nothing on these images (`enough`).
        """
        if tasks.of_classes(context.task) or batch_of(source.inputs) > 1:
            return None
        try:
            task = graph_task(
                str(context.task), source, context.preprocess, context.labels, context.decode
            )
            task.ready()
        except EdgecvError as e:  # whoever judges the bundle says so too
            log.info("%s: fidelity is not asked of the task: %s", context.where, e)
            return None
        asked = TaskFidelity(task, source.shown, context.preprocess, None, context.labels or ())
        asked.check(answers)
        found = asked.on(answers)
        return found if found is not None and found.enough else None

    def check(self, answers: Answers) -> None:
        """Raises UnsupportedError: what is read of the float network's answers to photographs
        cannot be."""
        self.task.check_reads(self.outputs, self._named(answers))

    def on(self, answers: Answers) -> TaskFidelity | None:
        """The same where the float network's answers are these, of other images."""
        reads = self._reads(answers)
        truth = self.task.told_by(reads, [self.preprocess.size] * len(reads))
        if truth is None:
            return None
        known = self.classes[: truth.largest + 1]
        names = (*self.classes, *map(str, range(len(known), truth.largest + 1)))
        return TaskFidelity(self.task, self.outputs, self.preprocess, truth, names)

    def score(self, answers: Answers) -> float:
        """0..1. answers: to the images of the truth, as `of` takes them"""
        return self.task.score(self._reads(answers), self.truth, self.classes).value

    def to_json(self, fidelity: float) -> dict[str, Any]:
        """What a graph's facts hold of a score: the metric, its value, and whether it is good."""
        good = fidelity >= FAITHFUL
        return {"metric": self.task.metric, "value": round(fidelity, 6), "good": good}

    def _reads(self, answers: Answers) -> list[Any]:
        """What the task reads of each, in pixels of the network's input."""
        size, asked = self.preprocess.size, self.task.judging()
        lies = Placement(size, (0, 0), (1.0, 1.0))
        return [self.task.read(one, lies, size, **asked) for one in self._named(answers)]

    def _named(self, answers: Answers) -> list[dict[str, np.ndarray]]:
        """The outputs of each image, as the task takes them."""
        return [
            {
                spec.name: np.asarray(values).reshape(spec.shape).astype(spec.dtype, copy=False)
                for spec, values in zip(self.outputs, row, strict=True)
            }
            for row in zip(*answers, strict=True)
        ]


def stacked(answers: Sequence[Answers]) -> Answers:
    """Answers of single images, each output (1, ...), as those of them all."""
    return tuple(np.stack(column) for column in zip(*answers, strict=True))
