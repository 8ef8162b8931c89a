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
import json
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
)

from edgecv import (
    model_source,
    reading_graph,
    recipe_flow,
    recipe_input,
    stages,
    strict_yaml,
    target,
    tasks,
    user_code,
)  # fmt: skip
from edgecv.backends import formats
from edgecv.errors import RecipeError, TargetError
from edgecv.graph_files import FILES
from edgecv.limits import Limits
from edgecv.model_source import ModelSource, is_file, locate
from edgecv.recipe_data import Bench, Data
from edgecv.recipe_flow import Step
from edgecv.stages.base import Limited, Stage
from edgecv.target import Target
from edgecv.yaml_validation import SET, Where, line_numbers, near, short, validated

NO_LIMITS = Limits()
# "prune.ratio=0.4" as on the command line, or {"prune.ratio": 0.4}
Settings = Sequence[str] | Mapping[str, Any]


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


TOP = ("model", "data", "task", "seed", "threads", "bench", "stages", "targets")
MAX_SEED = 2**32 - 1
MAX_THREADS = 1024


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
    for where, key, value, text in _read(settings):
        lines |= dict.fromkeys(_set(data, where, key, value), SET)
        said.append(text)
    recipe = check(data, path, lines, targets, limits)
    return replace(recipe, settings=tuple(said), limits=limits)


def _read(settings: Settings) -> Iterator[tuple[str, str, Any, str]]:
    """(where it is said, key, value, "key=value") of each. Raises RecipeError: it is none."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield f"settings[{key!r}]", key, value, f"{key}={json.dumps(value)}"
        return
    for setting in settings:
        key, equals, text = setting.partition("=")
        where = f"--set {setting}"
        if not equals or not key:
            raise RecipeError(where, "is not of the form key=value", "prune.ratio=0.4")
        yield where, key, strict_yaml.load(text, where)[0], setting


def _limited(step: Step, limits: Limits) -> Step:
    if not isinstance(step.stage, Limited):
        return step
    return replace(step, stage=step.stage.limited(limits))


def find(path: Path) -> Path:
    """The file of that name, in the working folder first, then among edgecv's own recipes."""
    here = Path(__file__).parent
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
    steps = tuple(_limited(step, limits) for step in _steps(data["stages"], where))
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


def _steps(items: Any, where: Where) -> tuple[Step, ...]:
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


def _integer(value: Any, where: Where, key: str, least: int, most: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        what = f"takes a whole number from {least} to {most}, found {short(value)}"
        raise RecipeError(where(key), what, f"e.g. {key}: {least}")
    return value


def _set(data: dict[str, Any], where: str, key: str, value: Any) -> list[tuple[Any, ...]]:
    """Apply one "prune.ratio" to the parsed recipe; return the key paths it set."""
    head, *rest = key.strip().split(".")
    if head in TOP and head not in ("stages", "targets"):
        if not rest:
            data[head] = value
            return [(head,)]
        if isinstance(data.get(head), str) and head == "model":
            data[head] = {"zoo": data[head]}
        if not isinstance(data.setdefault(head, {}), dict):
            raise RecipeError(where, f"{head} is {short(data[head])} and has no keys")
        data[head] = {**data[head], ".".join(rest): value}
        return [(head, ".".join(rest))]
    listed = data.get("stages") if isinstance(data.get("stages"), list) else []
    items = [(i, item) for i, item in enumerate(listed or ()) if isinstance(item, dict)]
    hits, known = [], [k for k in TOP if k not in ("stages", "targets")]
    for i, item in items:
        for word, parameters in item.items():
            name = parameters.get("name") if isinstance(parameters, dict) else None
            known += [str(n) for n in (word, name) if n]
            if head in (word, name) and (parameters is None or isinstance(parameters, dict)):
                hits.append((i, item, word))
    if not hits:
        raise RecipeError(where, f"the recipe has no {head!r}", near(head, known))
    if len(rest) != 1:
        raise RecipeError(where, f"names no parameter of {head!r}", f"{head}.PARAMETER=value")
    for _, item, word in hits:
        item[word] = {**(item[word] or {}), rest[0]: value}
    return [("stages", i, word, rest[0]) for i, _, word in hits]


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe."""
    definitions: dict[str, Any] = {}

    def of(cls: type[BaseModel]) -> dict[str, Any]:
        made = cls.model_json_schema(by_alias=True)
        definitions.update(made.pop("$defs", {}))
        return made

    step: list[dict[str, Any]] = [{"enum": list(stages.words())}]  # a bare word
    step += [
        {
            "type": "object",
            "properties": {word: of(cls)},
            "required": [word],
            "additionalProperties": False,
        }
        for word, cls in stages.words().items()
    ]
    model = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    known: dict[str, Any] = {key: {} for name in tasks.names() for key in tasks.task(name).knobs()}
    properties = {
        "model": model,
        "data": of(Data),
        "task": {
            "anyOf": [
                {"enum": [*tasks.names(), tasks.NONE]},
                {
                    "type": "object",
                    "properties": {"name": {"enum": list(tasks.names())}, **known},
                    "additionalProperties": False,
                    "required": ["name"],
                },
            ]
        },
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0},
        "threads": {"type": "integer", "minimum": 1, "maximum": MAX_THREADS, "default": 1},
        "bench": of(Bench),
        "stages": {"type": "array", "minItems": 1, "items": {"anyOf": step}},
        "targets": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgecv recipe",
        "type": "object",
        "properties": properties,
        "required": ["model", "data", "stages", "targets"],
        "additionalProperties": False,
        **({"$defs": definitions} if definitions else {}),
    }
