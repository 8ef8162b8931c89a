"""The words a recipe can use, found by listing this folder: a new stage is one new file."""

from __future__ import annotations

import difflib
import pkgutil
from functools import cache
from importlib import import_module

from edgecv.errors import RecipeError
from edgecv.stages.base import Stage


@cache
def words() -> dict[str, type[Stage]]:
    """Stage word -> class, sorted by word."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"):
        for value in vars(import_module(f"{__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Stage) and value.word == module:
                found[module] = value
    return found


def find(word: str, where: str) -> type[Stage]:
    """The stage of that word. Raises RecipeError with the nearest known one."""
    if word not in words():
        near = difflib.get_close_matches(word, words(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words())}"
        raise RecipeError(where, f"unknown stage {word!r}", hint)
    return words()[word]
