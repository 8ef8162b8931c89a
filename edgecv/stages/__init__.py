"""The words a recipe can use, found by listing this folder: a new stage is one new file.

A file edgecv/stages/<word>.py anywhere on the Python path is a stage too (`edgecv.portions`).
"""

from __future__ import annotations

import difflib
import pkgutil
from functools import cache
from importlib import import_module

from edgecv import portions
from edgecv.errors import RecipeError
from edgecv.stages.base import Stage

__path__ = [*__path__, *portions.of("stages")]


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"))


@cache
def _stage(word: str) -> type[Stage]:
    """The class in the file of that name; no other file is read."""
    found = vars(import_module(f"{__name__}.{word}")).values()
    return next(v for v in found if isinstance(v, type) and issubclass(v, Stage) and v.word == word)


@cache
def words() -> dict[str, type[Stage]]:
    """Stage word -> class, sorted by word."""
    return {word: _stage(word) for word in _names()}


def find(word: str, where: str) -> type[Stage]:
    """The stage of that word. Raises RecipeError with the nearest known one."""
    if word not in _names():
        near = difflib.get_close_matches(word, _names(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_names())}"
        raise RecipeError(where, f"unknown stage {word!r}", hint)
    return _stage(word)
