"""What is set instead of what a recipe says: `--set prune.ratio=0.4`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgecv import strict_yaml
from edgecv.errors import RecipeError
from edgecv.yaml_validation import near, short

# "prune.ratio=0.4" as on the command line, or {"prune.ratio": 0.4}
Settings = Sequence[str] | Mapping[str, Any]


TOP = ("model", "data", "task", "seed", "threads", "bench", "stages", "targets")


def read(settings: Settings) -> Iterator[tuple[str, str, Any, str]]:
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


def apply(data: dict[str, Any], where: str, key: str, value: Any) -> list[tuple[Any, ...]]:
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
