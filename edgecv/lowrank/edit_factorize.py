"""The edit "factorize": layers as products of smaller ones (`history.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.lowrank import history

    history.replay(module, edit)


def describe(edit: Edit) -> str:
    """One line of history."""
    from edgecv.lowrank import history

    return history.told(edit)


def conflicts(edit: Edit, later: Edit) -> None:
    """None: factors are convolutions and dense layers."""
