"""Recipe: YAML → checked steps. Everything is checked before anything runs.

    model:   a zoo name, "package.module:function", "net.onnx", a Model folder; or a mapping with
             arguments: {zoo: resnet8, width: 16}, {module: mynet:make, weights: best.pt}
    data:    {train: SOURCE, test: SOURCE, size: 32, mean: [0.5], std: [0.5]}; {images: FOLDER} in
             place of both has no labels
    task:    what the network is for: classification, detection, ... or none; or {name: detection,
             decoder: yolox, ...} with how its outputs are read; inferred where it is left out
    seed:    everything random is drawn from it
    stages:  a list of {word: {parameters}}; a step reads the one before, or `from:` an earlier one
    targets: names of device profiles (`edgecv targets`)

Unknown keys are errors that name the nearest known one; every error names file and line.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgecv import reading_graph, strict_yaml, target, tasks, user_code
from edgecv.errors import RecipeError, TargetError
from edgecv.limits import Limits
from edgecv.models import model_source
from edgecv.models.model_source import ModelSource
from edgecv.plan import (
    recipe_flow,
    recipe_input,  # fmt: skip
)
from edgecv.plan.recipe_data import Bench, Data
from edgecv.plan.recipe_flow import Step
from edgecv.plan.recipe_schema import MAX_SEED, MAX_THREADS
from edgecv.plan.recipe_settings import TOP, Settings, apply, read
from edgecv.plan.recipe_steps import steps_of
from edgecv.stages.base import Limited
from edgecv.target import Target
from edgecv.yaml_validation import SET, Where, line_numbers, near, short, validated

NO_LIMITS = Limits()


@dataclass(frozen=True)
class Recipe:
    """A checked recipe."""

    name: str
    folder: Path
    model: ModelSource
    data: Data
    seed: int
    threads: int
    bench: Bench
    steps: tuple[Step, ...]
    targets: tuple[Target, ...]
    alignment: int = 1  # channel counts stay a multiple of this, also with --target
    listed: tuple[Target, ...] = ()  # what stages measure on, also with --target
    labels: tuple[str, ...] | None = None  # instead of the data's own class names
    task: str | None = None  # of the network that ships; None is inferred
    decode: Mapping[str, Any] = field(default_factory=dict)  # how its outputs are read, as said
    settings: tuple[str, ...] = ()  # what `--set` changed
    limits: Limits = NO_LIMITS  # of what ships, where its step has none of its own
    notes: tuple[str, ...] = ()  # what was taken because the recipe does not say it

    @staticmethod
    def load(path: str | Path, settings: Settings = (), targets: Sequence[str] = ()) -> Recipe:
        """Read and check a recipe file, or one of edgecv's by its name.

        settings: {"prune.ratio": 0.4}, instead of what it says; targets: instead of its own
        Raises RecipeError, TargetError.
        """
        return load(Path(path), settings, targets)

    def step(self, name: str) -> Step:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Step]:
        return {s.name: s for s in self.steps}

    def builders(self) -> set[str]:
        """The functions of the user's that it names as builders of networks."""
        sources = [self.model, *(s.student for s in self.steps if s.student)]
        return {source.name for source in sources if source.kind == "module"}

    def limits_of(self, step: Step) -> Limits:
        """What the rows of a shipped step are to meet."""
        own = step.stage.limits if isinstance(step.stage, Limited) else Limits()
        return own or self.limits

    def shipped(self) -> list[Step]:
        """The leaves, and every step that says `ship: true`, in order."""
        return list(self._shipped.values())

    @cached_property
    def _shipped(self) -> dict[str, Step]:
        read = {name for s in self.steps for name in (s.source, s.teacher)}
        return {s.name: s for s in self.steps if s.stage.ship or s.name not in read}

    def ships(self, name: str) -> bool:
        return name in self._shipped


def load(
    path: Path,
    settings: Settings = (),
    targets: Sequence[str] = (),
    limits: Limits = NO_LIMITS,
) -> Recipe:
    """Read and check a recipe file.

    settings: "prune.ratio=0.4" overrides, by stage word, step name or top-level key; or a mapping
    targets:  replaces the recipe's own list when not empty
    limits:   for every step that takes limits and has none of that kind, and for the run
    Raises RecipeError, TargetError: where (file, line and key), what and a hint.
    """
    path = find(path)
    data, node = strict_yaml.read(path)
    lines = line_numbers(node)
    if not isinstance(data, dict):
        raise RecipeError(str(path), "holds no keys with values", f"its keys are {', '.join(TOP)}")
    user_code.beside(path.parent)
    return _changed(data, path, lines, settings, targets, limits)


def of_dict(
    data: Mapping[str, Any],
    settings: Settings = (),
    targets: Sequence[str] = (),
    limits: Limits = NO_LIMITS,
) -> Recipe:
    """Check a recipe that is no file: what one holds, called "recipe", with paths looked up in the
    working folder. The others as `load` takes them. Raises RecipeError, TargetError."""
    return _changed(copy.deepcopy(dict(data)), Path("recipe"), {}, settings, targets, limits)


def _changed(
    data: dict[str, Any], path: Path, lines: dict[tuple[Any, ...], int], settings: Settings,
    targets: Sequence[str], limits: Limits,
) -> Recipe:  # fmt: skip
    """A recipe with what is set instead, checked."""
    said = []
    for where, key, value, text in read(settings):
        lines |= dict.fromkeys(apply(data, where, key, value), SET)
        said.append(text)
    recipe = check(data, path, lines, targets, limits)
    return replace(recipe, settings=tuple(said), limits=limits)


def _limited(step: Step, limits: Limits) -> Step:
    if not isinstance(step.stage, Limited):
        return step
    return replace(step, stage=step.stage.limited(limits))


def find(path: Path) -> Path:
    """The file of that name, in the working folder first, then among edgecv's own recipes."""
    here = Path(__file__).parent.parent
    tries = [path, here / "_recipes" / path.name, here.parent / "recipes" / path.name]
    if path.suffix == "":
        tries += [t.with_suffix(".yaml") for t in tries]
    for candidate in tries:
        if candidate.is_file():
            return candidate
    raise RecipeError(str(path), "no such file", "give the path of a recipe, e.g. quickstart.yaml")


def check(
    data: dict[str, Any],
    path: Path,
    lines: dict[tuple[Any, ...], int],
    only: Sequence[str] = (),
    limits: Limits = NO_LIMITS,
) -> Recipe:
    """Check a parsed recipe; with `only`, for these targets instead of its own; limits: as `load`
    takes them."""
    where = Where(path, lines)
    for key in data:
        if key not in TOP:
            raise RecipeError(where(key), f"unknown key {key!r}", near(str(key), TOP))
    for key in ("model", "data", "stages", "targets"):
        if key not in data:
            raise RecipeError(path.name, f"key {key!r} is missing")
    if not isinstance(data["targets"], list) or not data["targets"]:
        raise RecipeError(where("targets"), "give a list of at least one target")
    listed = _targets(data["targets"], where)
    profiles = tuple(target.load(name) for name in dict.fromkeys(only)) if only else tuple(listed)
    steps = tuple(_limited(step, limits) for step in steps_of(data["stages"], where))
    model = model_source.read(data["model"], path.parent, where)
    task, decode = _task(data.get("task"), where)
    for profile in profiles:
        place = f"{where('task', 'nms')}: target {profile.name!r}"
        reading_graph.check(profile.backend, decode.get("nms") == "graph", place)
    given, own, notes = recipe_input.settled(
        validated(Data, data["data"], where, "data"), model, steps, where, task
    )
    recipe = Recipe(
        name=path.stem,
        folder=path.parent,
        model=model,
        data=given,
        seed=_integer(data.get("seed", 0), where, "seed", 0, MAX_SEED),
        threads=_integer(data.get("threads", 1), where, "threads", 1, MAX_THREADS),
        bench=validated(Bench, data.get("bench") or {}, where, "bench"),
        steps=steps,
        targets=profiles,
        # From the recipe's own list, so that `--target` reuses what a whole run has made.
        alignment=math.lcm(*(t.alignment for t in listed)),
        listed=tuple(listed),
        labels=own,
        task=task or recipe_input.task_of(given.train, given.test),
        decode=decode,
        notes=notes,
    )
    recipe_flow.check(model, recipe.steps, recipe.targets, recipe.ships, where)
    return recipe


def _task(said: Any, where: Where) -> tuple[str | None, dict[str, Any]]:
    """The task's name, and how its outputs are read."""
    decode = {k: v for k, v in said.items() if k != "name"} if isinstance(said, dict) else {}
    name = said.get("name") if isinstance(said, dict) else said
    words = (*tasks.names(), tasks.NONE)
    if said is not None and name not in words:
        hint = f"one of {', '.join(words)}; inferred where it is left out"
        raise RecipeError(where("task"), f"unknown task {short(name)}", hint)
    for key in decode:
        if name == tasks.NONE or key not in (known := tasks.task(str(name)).knobs()):
            known = () if name == tasks.NONE else known
            raise RecipeError(
                where("task", key), f"task {name} has no {key!r}", near(str(key), known)
            )
    decode = recipe_input.with_tables(decode, where.path.parent, lambda k: where("task", k))
    if decode:
        recipe_input.check_decode(str(name), decode, where("task"))
    return name, decode


def _targets(names: list[Any], where: Where) -> list[Target]:
    found: dict[str, Target] = {}
    for i, name in enumerate(names):
        try:
            found[str(name)] = target.load(str(name))
        except TargetError as e:
            raise TargetError(where("targets", i), f"{e.where}: {e.what}", e.hint) from None
    return list(found.values())


def _integer(value: Any, where: Where, key: str, least: int, most: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        what = f"takes a whole number from {least} to {most}, found {short(value)}"
        raise RecipeError(where(key), what, f"e.g. {key}: {least}")
    return value
