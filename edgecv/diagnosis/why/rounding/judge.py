"""What a network's answers are worth: dB from the float network's, and the task's own metric.

Labelled images are judged by their labels. Without labels the float network's answers are what is
right (`Task.told_by`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecv import tasks
from edgecv.bundling.inference import Answers, last_answers
from edgecv.bundling.task_score import check_kind
from edgecv.data.images import Images
from edgecv.diagnosis.parity.distance import outputs
from edgecv.runtime.archive import Contents
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.interface import own


@dataclass(frozen=True)
class Worth:
    """db: of the worst output, from float. points: of the metric, 0..100; None without a task."""

    db: float
    points: float | None

    def to_json(self) -> dict[str, float | None]:
        return {"db": round(self.db, 2), "points": _rounded(self.points)}


class Judge:
    """images: of the network's size. Raises DataError: labels of another task."""

    def __init__(self, contents: Contents, images: Images, where: str) -> None:
        self.images, self._contents = images, contents
        self._task = tasks.of_manifest(contents.manifest)
        self._names = [spec.name for spec, _ in own(contents.outputs, contents.graph[1])]
        self._kinds = kinds(contents.outputs)
        self._floats: Answers | None = None
        self._truth: Any = None
        self._classes = images.classes or tuple(contents.manifest.get("labels") or ())
        if self._task is not None and images.kind:
            check_kind(str(contents.manifest["task"]), images, where)
            self._truth = images.told

    @property
    def metric(self) -> str:
        """What points are of; "" where there are none."""
        if self._task is None or self._truth is None:
            return ""
        return self._task.points + ("" if self.images.kind else " of the float network's answers")

    def floats(self, session: Any) -> Worth:
        """The float network, which everything after is compared with."""
        self._floats = self._answers(session, len(self.images))
        if self._task is not None and self._truth is None:
            sizes = self.images.sizes(self._contents.preprocess.size)
            self._truth = self._task.told_by(list(self._reads(self._floats)), sizes)
            known = range(len(self._classes), getattr(self._truth, "largest", -1) + 1)
            self._classes = (*self._classes, *map(str, known))
        return Worth(200.0, self._points(self._floats))

    def worth(self, session: Any) -> Worth:
        """Another network, on all images; the session is closed then."""
        assert self._floats is not None
        found = self._answers(session, len(self.images))
        return Worth(self._db(found), self._points(found))

    def db(self, session: Any, count: int) -> float:
        """Of the first `count` images alone, dB from the float network's answers."""
        return self._db(self._answers(session, count))

    def _answers(self, session: Any, count: int) -> Answers:
        return last_answers(session, self.images.samples[:count], self._contents.preprocess)

    def _db(self, found: Answers) -> float:
        assert self._floats is not None
        return outputs(tuple(v[: len(found[0])] for v in self._floats), found, self._kinds).sqnr_db

    def _points(self, found: Answers) -> float | None:
        if self._task is None or self._truth is None:
            return None
        return 100.0 * self._task.score(self._reads(found), self._truth, self._classes).value

    def _reads(self, found: Answers) -> Iterator[Any]:
        """What the task reads of each image to be judged, in pixels of the picture as it was."""
        assert self._task is not None
        into, asked = self._contents.preprocess, self._task.judging()
        for i, size in enumerate(self.images.sizes(into.size)):
            rows = [values[i : i + 1] for values in found]
            named = dict(zip(self._names, rows, strict=True))
            yield self._task.read(named, into.placement(*size), size, **asked)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
