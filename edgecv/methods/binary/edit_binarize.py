"""The edit "binarize": one-bit layers (`replacing.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.models.edits import Edit, common

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """In place. Raises ModelError: it does not fit."""
    from edgecv.methods.binary.replacing import binarize

    binarize(module, edit)


def describe(edit: Edit) -> str:
    """One line of history."""
    what = f"{edit['weights']} weights, {'real' if edit['real_inputs'] else 'one-bit'} inputs"
    names = list(edit["layers"])
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{edit['step']}: {edit['form']}, {what}: {shown}"


def conflicts(edit: Edit, later: Edit) -> tuple[str, str] | None:
    """A second one, quantizers, and what is to change the same layers."""
    if later["op"] == "binarize":
        return "gave layers one bit already", "let both read the float step (`from:`)"
    if later["op"] == "quantizers":
        return "gave layers one bit", "`quantize` takes the other layers to int8"
    if name := common(edit, later):
        return f"gave layer {name!r} one bit", "name other layers, or put it before that step"
    return None
