"""One run of a torch network before it is exported: does it answer, with what, of what?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgecv.behaviour import tracking
from edgecv.errors import ModelError
from edgecv.methods.export._forward import decision
from edgecv.outputs import Outputs, outputs_of


def answered(module: nn.Module, example: Mapping[str, Tensor], where: str) -> tuple[Outputs, bool]:
    """What it returns for the example, and whether that is one tensor alone. In eval mode.

    example: by its arguments' names, in their order
    Raises ModelError: it fails, decides by the values of the example, returns what `outputs_of`
    refuses, or an input as it came in.
    """
    given = tuple(example.values())
    try:
        with torch.no_grad(), evaluating(module), tracking(module) as inside:
            result = module(*given)
            place = decision(module, *given)
    except Exception as e:
        at = f", at {inside()}" if inside() else ""
        shapes = " and ".join(str(tuple(x.shape)) for x in given)
        raise ModelError(where, f"fails on an input of {shapes}{at}", "check data.size") from e
    if place:
        what = f"its forward reads the values of an image, at {place}: a graph holds one answer"
        raise ModelError(where, what, "decide with torch.where, compute with torch")
    found = outputs_of(result, where)
    for name, tensor in found.tensors.items():
        if any(tensor is x for x in given):
            what = "is the input as it came in"
            raise ModelError(f"{where}: output {name!r}", what, "leave it out of what is returned")
    return found, isinstance(result, Tensor)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; every submodule's own mode after (a frozen BatchNorm stays frozen)."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
