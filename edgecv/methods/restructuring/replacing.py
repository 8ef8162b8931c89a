"""The edit "replace": convolutions by name, and the block that stands in the place of each.

{"op": "replace", "step": "compact",
 "modules": {"stage3.0.conv1": {"into": "separable", "c_in": 32, "c_out": 64, ...}}}
"""

from __future__ import annotations

from typing import Any

from torch import nn

from edgecv.errors import ModelError
from edgecv.methods.restructuring.blocks import Spec, make
from edgecv.models.edits import named, put


def replace(module: nn.Module, edit: dict[str, Any]) -> None:
    """Put a new block in the place of every convolution that the edit names.

    Raises ModelError where the edit does not fit the network.
    """
    where = f"the edit of step {edit.get('step')!r}"
    try:
        found = {name: Spec.read(data) for name, data in edit["modules"].items()}
    except (KeyError, TypeError, AttributeError) as e:
        raise ModelError("model.json", f"{where} is damaged: {e}") from None
    for name, spec in found.items():
        layer = named(module, name, edit)
        width = (getattr(layer, "in_channels", None), getattr(layer, "out_channels", None))
        if width != (spec.c_in, spec.c_out):
            what = f"{where} replaces {spec.c_in} to {spec.c_out} channels, {name!r} has {width}"
            raise ModelError("model.json", what)
        put(module, layer, make(spec))
