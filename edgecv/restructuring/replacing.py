"""The edit "replace": convolutions by name, and the block that stands in the place of each.

{"op": "replace", "step": "compact",
 "modules": {"stage3.0.conv1": {"into": "separable", "c_in": 32, "c_out": 64, ...}}}
"""

from __future__ import annotations

from typing import Any

from torch import nn

from edgecv.errors import ModelError
from edgecv.restructuring.blocks import Spec, make


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
        try:
            layer = module.get_submodule(name)
        except AttributeError:
            raise ModelError(
                "model.json",
                f"{where} names layer {name!r}, which is not there",
                "the network's own code has changed since this Model was saved",
            ) from None
        width = (getattr(layer, "in_channels", None), getattr(layer, "out_channels", None))
        if width != (spec.c_in, spec.c_out):
            what = f"{where} replaces {spec.c_in} to {spec.c_out} channels, {name!r} has {width}"
            raise ModelError("model.json", what)
        put(module, layer, make(spec))


def put(module: nn.Module, layer: nn.Module, block: nn.Module) -> None:
    """`block` wherever `layer` hangs in the network: a shared layer has several names."""
    block.train(layer.training)
    for parent in list(module.modules()):
        for key, child in list(parent._modules.items()):
            if child is layer:
                parent._modules[key] = block
