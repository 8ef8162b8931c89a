"""Whether the steps of a recipe fit together: said when it is read, before anything runs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.checking import Where
from edgecv.edits import Edit, conflict
from edgecv.errors import ModelError, RecipeError, TargetError
from edgecv.model_source import ModelSource
from edgecv.target import Target

if TYPE_CHECKING:
    from edgecv.recipe import Recipe


def check(recipe: Recipe, where: Where) -> None:
    """Whether every step can read what it reads, and every target offer what is asked of it."""
    for i, step in enumerate(recipe.steps):
        place = where("stages", i, step.stage.word)
        gives = "model" if recipe.model.kind != "onnx" else "graph"
        if step.source != "model":
            before = recipe.step(step.source).stage
            gives = before.produces
            if before.word == step.stage.word == "quantize":
                raise RecipeError(place, f"reads {step.source!r}, which is already quantized")
        if gives == "graph" and step.stage.word == "export" and step.source != "model":
            raise RecipeError(place, f"reads {step.source!r}, which is a graph file already")
        taught = step.student and step.source == "model"  # an .onnx file may teach a new network
        if gives == "graph" and step.stage.produces == "model" and not taught:
            raise RecipeError(
                place,
                f"needs a PyTorch network, and {step.source!r} is a graph file",
                "an .onnx file joins at quantize or export; use module:function to train or prune",
            )
        if recipe.ships(step.name):
            for profile in recipe.targets:
                precision = getattr(step.stage, "precision", "fp32")
                offers(profile, precision, place)
                verdict = step.stage.check(profile)
                if not verdict:
                    reasons = "; ".join(verdict.reasons)
                    raise TargetError(place, f"target {profile.name!r}: {reasons}")
    _check_edits(recipe, where)


def _check_edits(recipe: Recipe, where: Where) -> None:
    """Whether what a step changes in a network can stand on what the steps before it changed."""
    made = {"model": _made(recipe.model)}  # step -> edits of its network, one of each like
    for i, step in enumerate(recipe.steps):
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
    from edgecv.model import Model

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
