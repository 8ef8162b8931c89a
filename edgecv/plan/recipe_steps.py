"""A recipe's `stages:` as checked steps."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from edgecv import stages
from edgecv.backends import formats
from edgecv.errors import RecipeError
from edgecv.graph_files import FILES
from edgecv.models import model_source
from edgecv.models.model_source import is_file, locate
from edgecv.plan.recipe_flow import Step
from edgecv.stages.base import Stage
from edgecv.yaml_validation import Where, near, validated


def steps_of(items: Any, where: Where) -> tuple[Step, ...]:
    if not isinstance(items, list) or not items:
        raise RecipeError(where("stages"), "give a list of at least one stage")
    steps: dict[str, Step] = {}
    named: dict[str, int] = {}  # how often a word has named a step
    last = "model"
    for i, item in enumerate(items):
        if isinstance(item, str):
            item = {item: {}}
        if not isinstance(item, dict) or len(item) != 1:
            raise RecipeError(where("stages", i), "a stage is one word with its parameters")
        ((word, parameters),) = item.items()
        cls = stages.find(str(word), where("stages", i))
        stage = validated(cls, parameters or {}, where, "stages", i, word)
        name = stage.name or _unused(str(word), steps, named)
        if name in steps or name == "model":
            raise RecipeError(
                where("stages", i, word, "name"),
                f"there is a step {name!r} already",
                "give another name",
            )
        if name.endswith(tuple(f".{f}" for f in formats())):  # nodes of exported graphs end so
            place = where("stages", i, word, "name")
            raise RecipeError(place, f"name {name!r} ends like a graph file", "choose another")
        source = stage.from_ or last
        if source != "model" and source not in steps:
            place = where("stages", i, word, "from")
            raise RecipeError(place, f"no earlier step {source!r}", near(source, list(steps)))
        taught = _taught(stage, steps, where, "stages", i, word)
        steps[name] = Step(name, source, stage, **taught)
        last = name
    return tuple(steps.values())


def _taught(stage: Stage, steps: dict[str, Step], where: Where, *keys: Any) -> dict[str, Any]:
    """Who teaches a step, and whom it teaches: the fields of Step that `teacher:` and `student:`
    name."""
    found: dict[str, Any] = {}
    folder, student = where.path.parent, getattr(stage, "student", None)
    if student is not None:
        found["student"] = model_source.read(student, folder, where, *keys, "student")
        if found["student"].is_graph:
            called = FILES[found["student"].format].called
            hint = "give a zoo name, module:function or a Model folder"
            raise RecipeError(where(*keys, "student"), f"{called} is not trained", hint)
    teacher = getattr(stage, "teacher", "none")
    if stage.word == "distill" and (teacher == "none" or (teacher == "self" and student is None)):
        hint = "teacher: a step, a Model folder or net.onnx; or student: {zoo: resnet8}"
        raise RecipeError(where(*keys), "distill needs a teacher that is not its student", hint)
    if teacher in ("self", "none"):
        return found
    if teacher == "model" or (teacher in steps and steps[teacher].stage.produces == "model"):
        return found | {"teacher": teacher}
    path = locate(teacher, folder)
    if is_file(path / "model.json") or (path.suffix == ".onnx" and is_file(path)):
        return found | {"teacher_file": path}
    names = ["model", *(s.name for s in steps.values() if s.stage.produces == "model")]
    what = f"no earlier step, Model folder or .onnx file {teacher!r}"
    raise RecipeError(where(*keys, "teacher"), what, near(teacher, ["self", "none", *names]))


def _unused(word: str, taken: Container[str], named: dict[str, int]) -> str:
    """The word, or with the next free number behind it: train, train-2, train-3."""
    while True:
        named[word] = number = named.get(word, 0) + 1
        name = word if number == 1 else f"{word}-{number}"
        if name not in taken:
            return name
