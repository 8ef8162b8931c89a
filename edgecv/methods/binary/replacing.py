"""The edit "binarize": layers by name, what became a part of them, and how they compute.

{"op": "binarize", "step": "bits", "form": "react", "weights": "binary", "real_inputs": false,
 "estimator": "polynomial",
 "layers": {"stage1.0.conv1": {"norm": "stage1.0.bn1", "act": "stage1.0.relu1"}}}
"""

from __future__ import annotations

from typing import Any

from torch import nn

from edgecv.errors import ModelError
from edgecv.methods.binary.modules import OneBit, RPReLU
from edgecv.models.edits import named, put

# form -> (shift before the sign, real shortcut, RPReLU)
FORMS = {"react": (True, True, True), "bireal": (False, True, False), "xnor": (False, False, False)}


def binarize(module: nn.Module, edit: dict[str, Any]) -> None:
    """Put one-bit layers where the edit says, in place; they start from the float weights.

    Raises ModelError where the edit does not fit the network.
    """
    where = f"the edit of step {edit.get('step')!r}"
    try:
        shift, shortcut, rprelu = FORMS[edit["form"]]
        weights, real, estimator = edit["weights"], edit["real_inputs"], edit["estimator"]
        layers = {name: (places["norm"], places["act"]) for name, places in edit["layers"].items()}
    except (KeyError, TypeError, AttributeError) as e:
        raise ModelError("model.json", f"{where} is damaged: {e}") from None
    for name, (norm_name, act_name) in layers.items():
        layer = named(module, name, edit)
        norm = named(module, norm_name, edit) if norm_name else None
        act = named(module, act_name, edit) if act_name and rprelu else None
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            raise ModelError("model.json", f"{where} names {name!r}, a {type(layer).__name__}")
        made = OneBit(layer, norm, weights, real, estimator, shift, shortcut)
        put(module, layer, made)
        if norm is not None:
            made.norm = None  # `put` would find it inside its new home
            put(module, norm, nn.Identity())
            made.norm = norm
        if act is not None and not isinstance(act, RPReLU):
            put(module, act, RPReLU(len(made.weight)))
