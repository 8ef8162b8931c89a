"""The edit "binarize": one-bit layers (`replacing.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.binary.replacing import binarize

    binarize(module, edit)


def describe(edit: Edit) -> str:
    """One line of history."""
    from edgecv.binary import replacing

    return replacing.told(edit)
