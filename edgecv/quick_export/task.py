"""What the network is for, and how its outputs are read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgecv import tasks
from edgecv.errors import RecipeError, UnsupportedError
from edgecv.models import zoo
from edgecv.models.model_source import ModelSource
from edgecv.plan.recipe_data import Data
from edgecv.plan.recipe_input import (
    check_truth,
    task_of,
)
from edgecv.quick_export.request import Request
from edgecv.runtime.fidelity import kinds, width
from edgecv.runtime.spec import plain

BESIDE = (5, 4, 1, 0, 64)  # channels that stand beside the classes, the likeliest first

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


def check_outputs(
    source: ModelSource, known: Mapping[str, Any], task: str | None,
    labels: tuple[str, ...] | None, decode: Mapping[str, Any], data: Data,
) -> None:  # fmt: skip
    """What a graph file's outputs show before anything is made.

    known: `model_input.known`; labels: that the request gives, or None
    Raises RecipeError: as many labels as the network has not; UnsupportedError: outputs that the
    task does not read.
    """
    if not known.get("shown"):
        return
    shown, reader = known["shown"], tasks.task(str(task)) if task in tasks.names() else None
    if reader is None or tasks.of_classes(task):
        own = width(shown[0]) if kinds(shown)[shown[0].name] == "classes" else None
        if labels and own not in (None, len(labels)):
            raise _other_count(source, len(labels), str(own))
        return
    ends = list(map(plain, known["outputs"]))
    said = {**reader.of_ends(ends, ()), **decode}
    count = len(labels or known.get("labels") or ()) or None
    try:
        reader.of_graph(shown, data.height_width, count, said)
    except UnsupportedError:
        with suppress(UnsupportedError):  # which of them a sigmoid makes is known once it is made
            made = {**reader.of_ends(ends, [spec.name for spec in ends]), **decode}
            reader.of_graph(shown, data.height_width, count, made)
            return
        if not labels:
            raise
        sides = sorted({n for spec in shown for n in spec.shape[1:]})
        for other in (n - beside for beside in BESIDE for n in sides):
            with suppress(UnsupportedError):
                if other > 0 and reader.of_graph(shown, data.height_width, other, said):
                    raise _other_count(source, len(labels), str(other)) from None
        raise


def _other_count(source: ModelSource, given: int, own: str) -> RecipeError:
    what = f"{given} names are given, and {Path(source.name).name} has {own} classes"
    return RecipeError("--labels", what, "a line for each class, in the outputs' order")


def _option(key: str) -> str:
    """How the command line says a field of a task."""
    return key.replace("_", "-") if key in SHORT else f"decode {key}"
