"""What the network is for, and how its outputs are read."""

from __future__ import annotations

from edgecv import (
    tasks,
    zoo,
)
from edgecv.errors import RecipeError
from edgecv.plan.recipe_input import (
    check_truth,
    task_of,
)
from edgecv.quick_export.request import Request

# fields of tasks that have an option of their own
SHORT = ("decoder", "confidence", "iou", "max_detections", "agnostic", "priors", "form",
         "background", "nms")  # fmt: skip


def task_for(request: Request) -> str | None:
    """What the network is for: as is said; else by the zoo, where its network does one thing alone;
    by labels to judge it by; by what is said of how outputs are read, where one task reads so; and
    by the zoo's classifiers. None where nothing tells it."""
    if request.task is not None:
        return request.task
    name = request.model.removeprefix("zoo:")
    own = zoo.task(name) if name in zoo.names() else None
    if not tasks.of_classes(own):
        return own
    if request.evaluate and (found := task_of(request.evaluate)):
        return found
    read = [n for n in tasks.names() if request.decode.keys() <= {*tasks.task(n).knobs()}]
    return read[0] if request.decode and len(read) == 1 else own


def check_task(request: Request, task: str | None) -> None:
    """Raises RecipeError: what is said of reading outputs is of another task, or of none; images
    to judge a task by that say something else."""
    named = request.task or (task if request.decode else None)
    if request.evaluate:
        check_truth(named, request.evaluate, "--evaluate")
    known = tasks.task(str(task)).knobs() if task in tasks.names() else ()
    for key in request.decode:
        if key in known:
            continue
        reads = [n for n in tasks.names() if key in tasks.task(n).knobs()]
        hint = f"say --task {' or --task '.join(reads)}" if reads else "docs/detection.md"
        hint = f"it has {', '.join(known)}" if known else hint
        whose = f"task {task} has none" if task else "no task is given"
        raise RecipeError(f"--{_option(key)}", whose, hint)


def _option(key: str) -> str:
    """How the command line says a field of a task."""
    return key.replace("_", "-") if key in SHORT else f"decode {key}"
