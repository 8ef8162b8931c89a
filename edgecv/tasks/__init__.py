"""The tasks, found by listing this folder; each is imported when its name is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from edgecv.tasks.base import Task

NONE = "none"  # tensors in, tensors out
_SHARED = ("base", "drawing")  # what is no task but serves them


def names() -> tuple[str, ...]:
    """Every task's name, sorted. Imports none of them."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED))


def task(name: str) -> type[Task]:
    """The task of that name. Raises KeyError: there is none."""
    if name not in names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        v for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Task) and v.name == name
        and v.__module__.startswith(module.__name__)
    )  # fmt: skip
    return found


def of_manifest(manifest: Mapping[str, Any]) -> Task | None:
    """How a manifest says that its outputs are read; None where it does not. Raises ValueError."""
    name = manifest.get("task")
    if name not in names():
        return None
    return task(str(name)).of_manifest(manifest)


# A bundle knows its tasks: whichever of the two packages is asked for first, the other one follows
# when all above is there.
import edgecv.runtime  # noqa: E402, F401
