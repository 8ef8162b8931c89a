"""The edit "connections": zeros among the weights; no shape changes.

{"op": "connections", "step": "sparse", "layers": {"fc": [100, 1000]}}: kept, of
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.models.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """Nothing: the zeros are in the weights."""


def describe(edit: Edit) -> str:
    """One line of history."""
    kept, total = map(sum, zip(*edit["layers"].values(), strict=True))
    layers = len(edit["layers"])
    return f"{edit['step']}: {kept:,} of {total:,} connections of {layers} layers stay"


def conflicts(edit: Edit, later: Edit) -> None:
    """None: zeros are weights as before; a step that fills them again says so (`making`)."""
