"""The JSON Schema of a recipe."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
)

from edgecv import stages, tasks
from edgecv.plan.recipe_data import Bench, Data

MAX_SEED = 2**32 - 1


MAX_THREADS = 1024


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
