"""How a recipe names layers: by name, by pattern ("stage1.*"), or by a module that holds them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

SHOWN = 12


def is_named(name: str, wanted: str) -> bool:
    """Whether a layer is meant: "stage1.0.conv1" by "stage1.0.conv1", "*.conv1" or "stage1"."""
    return fnmatchcase(name, wanted) or name.startswith(f"{wanted}.")


def named(wanted: Sequence[str], names: Iterable[str], where: str) -> set[str]:
    """The names that are meant by one of `wanted`. Raises RecipeError: one that means nothing."""
    every = list(names)
    found: set[str] = set()
    for one in wanted:
        meant = {name for name in every if is_named(name, one)}
        if not meant:
            raise RecipeError(where, f"no layer matches {one!r}", hint(one, every))
        found |= meant
    return found


def layers(module: nn.Module) -> list[str]:
    """Names of the convolutions and dense layers."""
    from torch import nn

    return [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def hint(wanted: str, names: Sequence[str]) -> str:
    """The nearest layer or module; of a pattern, of what stands before its *."""
    stem = wanted.rstrip("*").rstrip(".")
    parents = {name[:i] for name in names for i, c in enumerate(name) if c == "."}
    if near := difflib.get_close_matches(stem, [*names, *sorted(parents)], 1):
        return f"did you mean {near[0] + wanted[len(stem) :]!r}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"its layers: {', '.join(names[:SHOWN])}{more}"
