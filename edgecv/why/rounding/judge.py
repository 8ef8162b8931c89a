"""What a network's answers are worth: dB from the float network's, and the task's own metric.

Labelled images are judged by their labels. Without labels the float network's answers are what is
right, as far as the task counts equal answers (`Task.same`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecv import tasks
from edgecv.data.images import Images
from edgecv.ladder.distance import outputs
from edgecv.replay import Answers, last_answers
from edgecv.runtime.archive import Contents
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.interface import own
from edgecv.task_score import check_kind


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
        labelled = self._task is not None and bool(images.kind)
        if labelled:
            check_kind(str(contents.manifest["task"]), images, where)
        self._labelled = labelled

    @property
    def metric(self) -> str:
        """What points are of; "" where there are none."""
        if self._task is None:
            return ""
        if self._labelled:
            return self._task.points
        return f"same {self._task.answers}" if self._task.answers else ""

    def floats(self, session: Any) -> Worth:
        """The float network, which everything after is compared with."""
        self._floats = self._answers(session, len(self.images))
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
        if self._task is None:
            return None
        if self._labelled:
            asked = self._task.judging()
            reads = self._reads(found, asked)
            return 100.0 * self._task.score(reads, self.images.told, self.images.classes).value
        if not self._task.answers:
            return None
        assert self._floats is not None
        both = either = 0
        for ours, theirs in zip(self._reads(self._floats, {}), self._reads(found, {}), strict=True):
            one, other = self._task.same(ours, theirs)
            both, either = both + one, either + other
        return 100.0 * both / either if either else None

    def _reads(self, found: Answers, asked: Any) -> Iterator[Any]:
        """What the task reads of each image, in pixels of the picture as it was."""
        assert self._task is not None
        into = self._contents.preprocess
        for i, size in enumerate(self.images.sizes(into.size)):
            rows = [values[i : i + 1] for values in found]
            named = dict(zip(self._names, rows, strict=True))
            yield self._task.read(named, into.placement(*size), size, **asked)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
