"""Whether the steps of a recipe fit together: said when it is read, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.backends import facts
from edgecv.errors import ModelError, RecipeError, TargetError
from edgecv.graph_files import FILES, reaches, read_into_pytorch
from edgecv.models.edits import Edit, conflict
from edgecv.models.model_source import ModelSource
from edgecv.stages.base import Stage
from edgecv.target import Target
from edgecv.yaml_validation import Where


@dataclass(frozen=True)
class Step:
    """One stage with its name and the name of the step it reads ("model" is the input).

    teacher:      the step that teaches it, or ""
    teacher_file: the Model folder or .onnx file that teaches it, or None
    student:      the network that it trains instead of the one it reads, or None
    """

    name: str
    source: str
    stage: Stage
    teacher: str = ""
    teacher_file: Path | None = None
    student: ModelSource | None = None


def check(
    model: ModelSource,
    steps: Sequence[Step],
    targets: Sequence[Target],
    ships: Callable[[str], bool],
    where: Where,
) -> None:
    """Whether every step can read what it reads, and every target offer what is asked of it.

    ships: whether the step of that name is compiled
    """
    for at, profile in enumerate(targets):
        takes(profile, model, where("targets", at))
    stages = {step.name: step.stage for step in steps}
    for i, step in enumerate(steps):
        place = where("stages", i, step.stage.word)
        gives = comes_as(model) if step.source == "model" else _gives(stages[step.source])
        if step.source != "model" and stages[step.source].word == step.stage.word == "quantize":
            raise RecipeError(place, f"reads {step.source!r}, which is already quantized")
        if gives == "graph" and step.stage.word == "export" and step.source != "model":
            raise RecipeError(place, f"reads {step.source!r}, which is a graph file already")
        teaches = step.source == "model" and read_into_pytorch(model.format)
        taught = step.student and teaches  # an .onnx file may teach a new network
        fits = taught or (gives == "file" and step.stage.on_files())
        if gives != "model" and step.stage.produces == "model" and not fits:
            raise RecipeError(
                place,
                f"needs a PyTorch network, and {step.source!r} is a graph file",
                "a graph file joins at quantize or export; use module:function to train or prune",
            )
        if ships(step.name):
            for profile in targets:
                precision = getattr(step.stage, "precision", "fp32")
                offers(profile, precision, place)
                suits(profile, step.stage, place)
    _check_edits(model, steps, where)


def comes_as(model: ModelSource) -> str:
    """What the network comes as: "model" in PyTorch, an .onnx "file", another "graph"."""
    if not model.is_graph:
        return "model"
    return "file" if read_into_pytorch(model.format) else "graph"


def _gives(stage: Stage) -> str:
    return "file" if stage.on_files() else stage.produces


def _check_edits(model: ModelSource, steps: Sequence[Step], where: Where) -> None:
    """Whether what a step changes in a network can stand on what the steps before it changed."""
    made = {"model": _made(model)}  # step -> edits of its network, one of each like
    for i, step in enumerate(steps):
        before = made[step.source] if step.student is None else _made(step.student)
        made[step.name] = before
        if edit := step.stage.planned(step.name):
            if found := conflict(edit, before.values()):
                raise RecipeError(where("stages", i, step.stage.word), *found)
            alike = (edit["op"], *edit.get("layers", ()))
            made[step.name] = before if alike in before else before | {alike: edit}


def _made(source: ModelSource) -> dict[Any, Edit]:
    """The edits of a network as it comes."""
    if source.kind != "folder":
        return {}
    from edgecv.models.model import Model

    with suppress(ModelError):  # damaged: said when it is opened
        return dict(enumerate(Model.read(Path(source.name)).edits))
    return {}


def offers(profile: Target, precision: str, where: str) -> None:
    """Raise TargetError unless the target offers that precision."""
    if precision not in profile.precisions:
        raise TargetError(
            where,
            f"target {profile.name!r} does not offer {precision}",
            f"it offers {', '.join(profile.precisions)}",
        )


def suits(profile: Target, stage: Stage, where: str) -> None:
    """Raise TargetError unless the target can have what the stage is asked for."""
    if not (verdict := stage.check(profile)):
        reasons = "; ".join(verdict.reasons)
        raise TargetError(where, f"target {profile.name!r}: {reasons}")


def takes(profile: Target, model: ModelSource, where: str) -> None:
    """Raise TargetError where a file was made for other engines than the target's."""
    if not model.is_graph:
        return
    kind, wanted = FILES[model.format], graph_format(profile, model)
    made = wanted in kind.becomes or read_into_pytorch(model.format)
    if wanted != model.format and not made:
        engine = facts(profile.backend).label
        what = f"{Path(model.name).name} is {kind.called}, which {engine} does not read"
        raise TargetError(f"{where}: target {profile.name!r}", what, kind.way_out)


def graph_format(profile: Target, model: ModelSource) -> str:
    """The format in which a network reaches a target's engine."""
    return reaches(profile, model.format)
