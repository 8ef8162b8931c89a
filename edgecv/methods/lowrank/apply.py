"""Put what was decided into a network, in place: factors, or structured layers, with weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgecv.errors import StageError
from edgecv.methods.lowrank.decide import Candidate
from edgecv.methods.lowrank.form import Ranks, built
from edgecv.methods.lowrank.grouped import Grouped
from edgecv.methods.lowrank.layers import Layer, covariance
from edgecv.models.edits import put

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgecv.context import Context

BATCH = 64
NO_DENSE = "is no dense layer"


def apply(module: nn.Module, chosen: Sequence[tuple[Candidate, Ranks]]) -> dict[str, Any]:
    """Replace the layers by their factors; {"layers": ...} of the edit."""
    made: dict[str, Any] = {}
    for found, ranks in chosen:
        layer = module.get_submodule(found.name)
        put(module, layer, factorised(layer, found, ranks))
        made[found.name] = {"form": found.form.name, "ranks": list(ranks)}
        if isinstance(found.form, Grouped):
            made[found.name]["groups"] = found.form.groups
    return {"layers": made}


def agreement(
    module: nn.Module, sample: torch.Tensor, percent: float
) -> Callable[[Sequence[tuple[Candidate, Ranks]]], bool]:
    """Whether at most so many of the sample's answers change by those factors; the network stays.

    sample: float32 (N, C, H, W)
    """
    import torch

    def answers(network: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([network(x).argmax(1) for x in sample.split(BATCH)])

    own = answers(module.eval())

    def holds(chosen: Sequence[tuple[Candidate, Ranks]]) -> bool:
        trial = copy.deepcopy(module)
        apply(trial, chosen)
        return float((answers(trial) != own).float().mean()) <= percent / 100

    return holds


def factorised(layer: Any, found: Candidate, ranks: Ranks) -> nn.Sequential:
    """The row of layers in place of one, with its weights and its bias."""
    import torch

    parts = found.form.parts(found.shape, ranks)
    row = built(parts, layer)
    with torch.no_grad():
        for part, weight in zip(row, found.factors(ranks), strict=True):
            own: Any = part.weight
            own.copy_(torch.from_numpy(weight.copy()).reshape(own.shape))
        last: Any = row[-1]
        if layer.bias is not None:
            last.bias.copy_(layer.bias)
    return row


def structure(
    module: nn.Module, layers: Sequence[Layer], method: str, rank: int,
    sample: torch.Tensor | None, context: Context,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Replace dense layers by the nearest structured ones: "layers" of the edit, and facts.

    Raises StageError: none of them is dense with parameters to save.
    """
    from edgecv.methods.lowrank.projection import left, project

    made: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    whole: dict[str, str] = {}
    for layer in layers:
        side = max(layer.shape.channels)
        count = side * (1 if method == "circulant" else 2 * rank)
        if layer.refusal or layer.shape.kind != "dense":
            whole[layer.name] = layer.refusal or NO_DENSE
        elif count >= layer.shape.weights:
            whole[layer.name] = f"has {layer.shape.weights} weights, {method} {count}"
        else:
            part: Any = module.get_submodule(layer.name)
            known = None if sample is None else covariance(module, layer.name, sample, context.seed)
            new = project(part, method, rank, known, context.seed)
            made[layer.name] = {"structure": method, "rank": rank}
            lost = round(left(part, new, known), 6)
            facts[layer.name] = {"structure": method, "rank": rank, "error": lost,
                                 "parameters": round(count / layer.shape.weights, 4)}  # fmt: skip
            put(module, part, new)
    if not made:
        dense = [f"{name} {why}" for name, why in whole.items() if why != NO_DENSE]
        told = "; ".join(dense) or "there is none but the classifier, which `layers` may name"
        hint = "lower the rank" if method == "toeplitz" and dense else "leave this step out"
        raise StageError(context.where, f"no dense layer can be {method}: {told}", hint)
    return made, {"layers": facts, "whole": whole}
