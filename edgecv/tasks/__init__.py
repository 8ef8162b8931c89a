"""The tasks, found by listing this folder and edgecv/tasks/ anywhere on the Python path.

Each is imported when its name is asked for; this module takes next to nothing to import.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from edgecv import portions

if TYPE_CHECKING:  # the command line reads this module at every start
    from edgecv.tasks.base import Task

__path__ = [*__path__, *portions.of("tasks")]
NONE = "none"  # tensors in, tensors out
SHARED = ("augment", "base", "drawing", "paired", "probabilities")  # what tasks share


@cache
def names() -> tuple[str, ...]:
    """Every task's name, sorted. Imports none of them."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in SHARED))


def task(name: str) -> type[Task]:
    """The task of that name. Raises KeyError: there is none."""
    if name not in names():
        raise KeyError(name)
    from edgecv.tasks.base import Task

    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        v for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Task) and v.name == name
        and v.__module__.startswith(module.__name__)
    )  # fmt: skip
    return found


def of_classes(name: str | None) -> bool:
    """Whether labels are one class an image, as they are where nothing is said."""
    return name in (None, NONE, "classification")


def width(name: str | None, classes: int) -> int:
    """How many outputs a network of that task has for so many names."""
    return classes if of_classes(name) else task(str(name)).width(classes)


def figure(metric: str, name: str, value: float) -> str:
    """One of `Score.more` beside that metric as tables show it: shares of 1 in points."""
    amounts = next((t.amounts for t in map(task, names()) if t.metric == metric), ())
    return f"{value:.4g}" if name.split(" ")[0] in amounts else f"{100 * value:.2f}"


def called(metric: str) -> str:
    """How tables call a task's metric: "map50_95" is "mAP"."""
    return next((t.points for t in map(task, names()) if t.metric == metric), metric)


def of_manifest(manifest: Mapping[str, Any]) -> Task | None:
    """How a manifest says that its outputs are read; None where it does not. Raises ValueError."""
    name = manifest.get("task")
    if name not in names():
        return None
    return task(str(name)).of_manifest(manifest)
