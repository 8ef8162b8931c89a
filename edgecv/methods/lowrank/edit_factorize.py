"""The edit "factorize": layers as products of smaller ones (`history.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.models.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.methods.lowrank import history

    history.replay(module, edit)


def describe(edit: Edit) -> str:
    """One line of history: "low: 2 layers as products: conv2 tucker2 16, 32; fc svd 8"."""
    layers = dict(sorted(edit.get("layers", {}).items()))  # as a saved edit has them
    parts = []
    for name, made in layers.items():
        groups = f" in {made['groups']} groups" if "groups" in made else ""
        parts.append(f"{name} {made['form']}{groups} {', '.join(map(str, made['ranks']))}")
    return f"{edit.get('step')}: {len(layers)} layers as products: {'; '.join(parts)}"


def conflicts(edit: Edit, later: Edit) -> None:
    """None: factors are convolutions and dense layers."""
