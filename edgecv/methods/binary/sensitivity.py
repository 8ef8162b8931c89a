"""d_l = mean over images of KL(p ‖ p_l), p_l: the network with one bit in layer l alone.

Of another task than classification d_l is the distance of all outputs
(`edgecv.methods.distillation.losses.answers`). Batch norms are measured anew in all of those
networks, nothing trains. What a layer costs is then compared with what it saves, and a choice of
layers takes the cheapest d_l / MACs_l first, until their MACs are the wanted share. Ranking layers
one at a time is HAWQ's and ZeroQ's way (Cai et al., CVPR 2020, section 3.3). Pitfalls: errors are
taken to add up; training mends more in some layers than in others, which no measurement before it
sees.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgecv.context import Context

IMAGES = 512


@dataclass(frozen=True)
class Cost:
    """divergence: d_l, of classes in nats; macs: multiply-accumulates of one image."""

    divergence: float
    macs: int


def damage(module: nn.Module, edit: dict[str, Any], context: Context) -> dict[str, Cost]:
    """The cost of each layer of an edit "binarize"; the network stays as it is."""
    import torch

    from edgecv.methods.binary.replacing import binarize
    from edgecv.methods.pruning.probe import probe, trained_form
    from edgecv.methods.pruning.tuning import recalibrate

    sample = probe(module, context, IMAGES)
    batches = [x for x, _ in sample.batches]
    said, apart = (_classes, _nats) if sample.task is None else (trained_form, _distance)
    whole = copy.deepcopy(module)
    recalibrate(whole, context, IMAGES)  # as those it is compared with
    with torch.no_grad():
        wanted = [said(whole, x) for x in batches]
    counts = _macs(module, list(edit["layers"]), batches[0][:1])
    found = {}
    for done, (name, places) in enumerate(edit["layers"].items()):
        alone = copy.deepcopy(module)
        binarize(alone, {**edit, "layers": {name: places}})
        recalibrate(alone, context, IMAGES)
        with torch.no_grad():
            lost = sum(apart(said(alone, x), p) for x, p in zip(batches, wanted, strict=True))
        found[name] = Cost(lost / sum(map(len, batches)), counts[name])
        context.progress(done + 1, len(edit["layers"]), "sensitivity")
    return found


def _classes(module: nn.Module, x: torch.Tensor) -> Any:
    return module(x).log_softmax(1)


def _nats(said: Any, wanted: Any) -> float:
    """KL of log-probabilities (N, C), summed over images."""
    import torch.nn.functional as F

    return float(F.kl_div(said, wanted, reduction="sum", log_target=True))


def _distance(said: Any, wanted: Any) -> float:
    """Of what networks of another task return for a batch, times its images."""
    from edgecv.behaviour import tensors
    from edgecv.methods.distillation.losses import answers

    return float(answers(said, wanted)) * len(next(tensors(said)))


def _macs(module: nn.Module, names: list[str], x: torch.Tensor) -> dict[str, int]:
    """Multiply-accumulates of convolutions and dense layers for one image (1, C, H, W)."""
    import torch

    found: dict[str, int] = {}

    def note(name: str, layer: nn.Module, out: torch.Tensor) -> None:
        weight = layer.get_parameter("weight")
        found[name] = weight.numel() * out.numel() // len(weight)

    hooks = [
        layer.register_forward_hook(lambda part, _, out, n=name: note(n, part, out))
        for name, layer in ((name, module.get_submodule(name)) for name in names)
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def least(costs: Mapping[str, Cost], share: float) -> set[str]:
    """The layers that lose least for their MACs, until `share` of all their MACs is reached."""
    wanted = share * sum(cost.macs for cost in costs.values())
    taken: set[str] = set()
    for name in sorted(costs, key=lambda n: costs[n].divergence / costs[n].macs):
        if sum(costs[n].macs for n in taken) >= wanted:
            break
        taken.add(name)
    return taken
