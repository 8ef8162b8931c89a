"""What a bundle's task makes of two forms' outputs: how many of its answers both of them give.

    detection      boxes of one class that overlap by half, of all the boxes of either
    segmentation   pixels of one class, of all that either says something of

Of a row of classes the agreement of `edgecv.runtime.fidelity` says the same, and of a network
without a task there are no answers.
"""

from __future__ import annotations

from typing import Any

from edgecv import tasks
from edgecv.bundling.inference import Answers
from edgecv.errors import BundleError, UnsupportedError
from edgecv.runtime.archive import Contents
from edgecv.runtime.interface import own
from edgecv.runtime.placement import Placement
from edgecv.tasks.base import Task


class Answered:
    """A bundle's task, asked of what any form of its network answers."""

    def __init__(self, contents: Contents) -> None:
        task = tasks.of_manifest(contents.manifest)
        self._task: Task | None = task if task and task.answers else None
        self._names = [spec.name for spec, _ in own(contents.outputs, contents.graph[1])]
        self._size = contents.preprocess.size if contents.image else (0, 0)

    def shared(self, before: Answers, after: Answers) -> dict[str, Any] | None:
        """{"of": what is counted, "both", "either"} over all images, in pixels of the input and as
        the bundle is deployed; None where nothing is.

        before, after: every output, (N, ...) channels first, in the bundle's order
        """
        task = self._task
        if task is None or any(len(found) != len(self._names) for found in (before, after)):
            return None
        both = either = 0
        for i in range(len(before[0])):
            try:
                ours, theirs = (self._read(task, found, i) for found in (before, after))
            except (BundleError, UnsupportedError):  # another network's outputs
                return None
            counts = task.same(ours, theirs)
            both, either = both + counts[0], either + counts[1]
        return {"of": task.answers, "both": both, "either": either}

    def _read(self, task: Task, found: Answers, image: int) -> Any:
        rows = [values[image : image + 1] for values in found]
        whole = Placement(self._size, (0, 0), (1.0, 1.0))
        return task.read(dict(zip(self._names, rows, strict=True)), whole, self._size)
