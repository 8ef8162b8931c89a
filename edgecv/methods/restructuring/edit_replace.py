"""The edit "replace": blocks in the place of convolutions (`replacing.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.models.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.methods.restructuring.replacing import replace

    replace(module, edit)


def describe(edit: Edit) -> str:
    """One line of history."""
    from edgecv.methods import restructuring

    return restructuring.describe(edit)


def conflicts(edit: Edit, later: Edit) -> None:
    """None: blocks are made of convolutions."""
