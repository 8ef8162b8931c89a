"""Line numbers of YAML, and pydantic's complaints as one-line errors with a place and a hint."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgecv.errors import RecipeError

_SHOWN = 200  # characters of a wrong value
# In place of a line number: the value came from `--set`.
SET = -1
# pydantic's phrases -> plainer ones
PLAIN = (
    (", unable to parse string as an integer", ""), (", unable to parse string as a number", ""),
    (", unable to interpret input", ""), (", got a number with a fractional part", ""),
    ("Input should be a valid integer", "must be a whole number"),
    ("Input should be a valid number", "must be a number"),
    ("Input should be a valid boolean", "must be true or false"),
    ("Input should be a valid string", "must be text"),
    ("Input should be a valid list", "must be a list"),
    ("Input should be", "must be"), ("Input should", "must"),
)  # fmt: skip


class Where:
    """Turns a key path into "recipe.yaml:12: stages[1].prune.ratio"."""

    def __init__(self, path: Path, lines: dict[tuple[Any, ...], int]) -> None:
        self.path, self.lines = path, lines
        self.name = path.name if path.is_absolute() else str(path)

    def __call__(self, *keys: Any) -> str:
        known = (keys[:i] for i in range(len(keys), 0, -1) if keys[:i] in self.lines)
        line = self.lines.get(next(known, ()), 0)
        if line == SET:
            dotted = ".".join(str(k) for k in keys if not isinstance(k, int))
            return f"--set {dotted.removeprefix('stages.')}"
        dotted = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).lstrip(".")
        return f"{self.name}:{line}: {dotted}" if line else f"{self.name}: {dotted}"


def validated(cls: type[BaseModel], values: Any, where: Where, *keys: Any) -> Any:
    """Build a checked type from the part of a recipe at `keys`.

    Raises RecipeError: not a mapping, an unknown key, a missing one, a wrong type or range.
    """
    if not isinstance(values, dict):
        what = f"expected keys and values, found {short(values)}"
        raise RecipeError(where(*keys), what, _keys(cls))
    known = [f.alias or n for n, f in cls.model_fields.items()]
    if "on" in known:  # YAML 1.1 reads a bare `on` as true
        values = {"on" if key is True else key: value for key, value in values.items()}
    for key in values:
        if key not in known:
            raise RecipeError(where(*keys, key), f"unknown key {key!r}", near(str(key), known))
    try:
        made = cls.model_validate(values)
    except ValidationError as e:
        inner, message = _first(e)
        if message == "missing":
            hint = _about(cls, str(inner[-1])) or _keys(cls)
            raise RecipeError(where(*keys), f"key {inner[-1]!r} is missing", hint) from None
        hint = _about(cls, str(inner[0])) if inner else ""
        raise RecipeError(where(*keys, *inner), message, hint) from None
    for name, field in cls.model_fields.items():
        key = field.alias or name
        if _is_truth(values.get(key), getattr(made, name)):
            what = f"takes a number, found {short(values[key]).lower()}"
            raise RecipeError(where(*keys, key), what, _about(cls, name))
    return made


def _is_truth(value: Any, taken: Any) -> bool:
    """Whether true or false was taken as the number 1 or 0, alone or in a list."""
    if isinstance(value, list | tuple) and isinstance(taken, list | tuple):
        return any(_is_truth(a, b) for a, b in zip(value, taken, strict=False))
    return (
        isinstance(value, bool) and not isinstance(taken, bool) and isinstance(taken, int | float)
    )


def short(value: Any) -> str:
    """A wrong value as an error shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def checked(cls: type[BaseModel], values: dict[str, Any], options: Mapping[str, str]) -> Any:
    """Build a checked type from command line options.

    options: field -> the option that sets it. Raises RecipeError naming the option.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as e:
        inner, message = _first(e)
        name = str(inner[0]) if inner else ""
        raise RecipeError(options.get(name, name), message, _about(cls, name)) from None


def _first(error: ValidationError) -> tuple[list[Any], str]:
    """The place and the message of a validation's first error."""
    first = error.errors()[0]
    place = [k for k in first["loc"] if k not in ("int", "tuple[int, int]")]
    if first["type"] == "missing":
        return place, "missing"
    message = plain(first["msg"])
    # of several keys together the message names what was found
    return place, f"{message}, found {short(first['input'])}" if place else message


def plain(message: str) -> str:
    """A complaint of pydantic's in the words of all others."""
    message = message.removeprefix("Value error, ")
    for theirs, ours in PLAIN:
        message = message.replace(theirs, ours)
    return message


def _about(cls: type[BaseModel], name: str) -> str:
    """What a field is for and its default: the hint for a wrong value."""
    field = next((f for n, f in cls.model_fields.items() if name in (n, f.alias)), None)
    if field is None:
        return ""
    parts = [field.description] if field.description else []
    if not field.is_required():
        parts.append(f"default {json.dumps(field.default, default=str)}")
    return "; ".join(parts)


def _keys(cls: type[BaseModel]) -> str:
    return f"its keys are {', '.join(f.alias or n for n, f in cls.model_fields.items())}"


def near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none yet'}"


def line_numbers(node: yaml.Node | None, keys: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], int]:
    """Key path -> line number, from 1."""
    found: dict[tuple[Any, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*keys, key.value)
            found[inner] = key.start_mark.line + 1
            found |= line_numbers(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            found[(*keys, i)] = value.start_mark.line + 1
            found |= line_numbers(value, (*keys, i))
    return found
