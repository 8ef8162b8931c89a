"""The edit "quantizers": learned ranges of weights and activations (`attach.py`).

{"op": "quantizers", "step": "learned", "method": "lsq",
 "quantizers": {name: {"bits": 8, "low": 0, "high": 255, ...}},
 "calls": [{"call": 2, "name": "relu", "output": name}]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.errors import ModelError
from edgecv.models.edits import Edit

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """Attach the quantizers, in place. Raises ModelError: it does not fit."""
    from edgecv.methods.qat.attach import attach

    try:
        attach(module, edit)
    except (KeyError, TypeError) as e:
        raise ModelError("model.json", f"the edit of step {edit.get('step')!r} lacks {e}") from None


def describe(edit: Edit) -> str:
    """One line of history."""
    bits = {
        kind: sorted(
            {
                q["bits"]
                for q in edit["quantizers"].values()
                if ("parameter" in q) == (kind == "weights")
            }
        )
        for kind in ("weights", "activations")
    }
    told = ", ".join(f"{kind} of {'/'.join(map(str, b))} bits" for kind, b in bits.items())
    return f"{edit['step']}: learned ranges ({edit['method']}): {told}"


def conflicts(edit: Edit, later: Edit) -> tuple[str, str]:  # noqa: ARG001
    """Every other: ranges and steps were learned for the layers as they are."""
    if later["op"] == "quantizers":
        return "learned ranges already", "let both read the float step (`from:`)"
    hint = "put it before that step, or let it read the float step (`from:`)"
    return "learned ranges of the layers as they are", hint
