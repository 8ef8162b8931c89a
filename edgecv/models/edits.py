"""Structural edits: what was done to a network's shape, as data that can be replayed.

An edit is plain JSON with an `op`, the `step` that made it, and what the op needs. Replaying a
Model is: build the dense network, apply its edits in order, load the weights. Replay needs no
pruning library and no tracing: an edit names modules and the indices that stay.

A kind of edit is one file, edit_<op>.py beside the method that it belongs to, found by listing:
`replay(module, edit)`, `describe(edit)` and `conflicts(edit, later)`: why a later edit cannot stand
on this one, and the way out. A later edit that is only planned has its `op`, its `step` and, as
`layers`, those that the recipe names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import edgecv
from edgecv.errors import ModelError, StageError

if TYPE_CHECKING:
    import torch

Edit = dict[str, Any]


@cache
def kinds() -> dict[str, str]:
    """op -> the module of that kind of edit, sorted by op. Nothing is imported."""
    here = Path(edgecv.__file__).parent
    found = {p.stem.removeprefix("edit_"): p.parent.name for p in here.glob("methods/*/edit_*.py")}
    return {op: f"edgecv.methods.{found[op]}.edit_{op}" for op in sorted(found)}


def kind(op: str) -> ModuleType | None:
    """The module of that kind of edit; None where there is none."""
    if op not in kinds():
        return None
    room = kinds()[op].split(".")[2]
    return import_module(f"edgecv.methods.{room}.edit_{op}")


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """Apply one edit to a module in place. Raises ModelError: unknown op, or it does not fit."""
    found = kind(str(edit.get("op")))
    if found is None:
        what = f"unknown edit {edit.get('op')!r}"
        raise ModelError("model.json", what, "this Model is from a newer edgecv: upgrade")
    found.replay(module, edit)


def describe(edit: Edit) -> str:
    """One line of history: what the edit did."""
    found = kind(str(edit.get("op")))
    return str(found.describe(edit)) if found else f"{edit.get('step')}: {edit.get('op')}"


def conflict(edit: Edit, earlier: Iterable[Edit]) -> tuple[str, str] | None:
    """What is wrong and a hint, where an edit cannot stand on those made before; None if it can."""
    for before in earlier:
        found = kind(str(before.get("op")))
        if found and (why := found.conflicts(before, edit)):
            return f"cannot follow step {before.get('step')!r}, which {why[0]}", why[1]
    return None


def check(edit: Edit, earlier: Iterable[Edit]) -> None:
    """Raises StageError where an edit, made or planned, cannot stand on those made before it."""
    if found := conflict(edit, earlier):
        raise StageError(str(edit.get("step")), *found)


def common(edit: Edit, later: Edit) -> str:
    """The first layer that both edits name; "" where there is none."""
    both = edit.get("layers", {}).keys() & later.get("layers", {}).keys()
    return str(min(both, default=""))


def named(module: torch.nn.Module, name: str, edit: Edit) -> Any:
    """The layer that an edit names. Raises ModelError where it is not there."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise ModelError(
            "model.json",
            f"edit of step {edit.get('step')!r} names layer {name!r}, which is not there",
            "the network's own code has changed since this Model was saved",
        ) from None


def put(module: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    """`new` wherever `old` hangs in the network, in its mode: a shared layer has several names."""
    new.train(old.training)
    for parent in list(module.modules()):
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = new
