"""The edit "structured": dense layers with structured weights (`history.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.models.edits import Edit, common

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.methods.lowrank import history

    history.replay(module, edit)


def describe(edit: Edit) -> str:
    """One line of history."""
    layers = dict(sorted(edit.get("layers", {}).items()))  # as a saved edit has them
    parts = [f"{n} {m['structure']} of rank {m['rank']}" for n, m in layers.items()]
    return f"{edit.get('step')}: structured {len(layers)} dense layers: {'; '.join(parts)}"


def conflicts(edit: Edit, later: Edit) -> tuple[str, str] | None:
    """Quantizers, and what is to change the same layers."""
    if later["op"] == "quantizers":
        return "left layers that multiply by FFT", "quantize after training, or lowrank by svd"
    if name := common(edit, later):
        return f"made layer {name!r} structured", "name other layers, or put it before that step"
    return None
