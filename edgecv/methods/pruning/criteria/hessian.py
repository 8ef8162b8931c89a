"""I(c) = ½ Σ h_ii w_i², over the columns that read channel c;  h = E_z[z ⊙ H z], z = ±1.

Optimal brain damage (LeCun et al., NIPS 1989) with the Hessian's diagonal by Hutchinson's estimator
(two backward passes for every draw of z), not by squared gradients: at a minimum the gradients of
a trained network are small and their squares noisy. Setting those columns to zero is what removing
the channel is. Pitfall: the estimate may be negative (noise, saddles): its size is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group
from edgecv.methods.pruning.probe import Probe, loss

ADDITIVE = True
DRAWS = 4  # of z, for each batch


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:
    readers = {m.name: m.layer for g in groups for m in g.consumers()}
    weights: dict[str, Any] = {name: layer.weight for name, layer in readers.items()}
    curvature = diagonal(probe, list(weights.values()))
    found = []
    for group in groups:
        total = torch.zeros(group.width)
        for member in group.consumers():
            index = list(weights).index(member.name)
            harm = 0.5 * curvature[index] * weights[member.name].detach().square()
            total += group.summed(member, harm.transpose(0, 1).flatten(1).sum(1))
        found.append(total.abs())
    return found


def diagonal(probe: Probe, weights: list[Tensor]) -> list[Tensor]:
    """The diagonal of the Hessian of the mean loss, estimated; shaped as the weights."""
    chance = torch.Generator().manual_seed(probe.context.seed)
    totals = [torch.zeros_like(w) for w in weights]
    with torch.enable_grad():
        for x, y in probe.batches:
            slopes = torch.autograd.grad(
                loss(probe, x, y), weights, create_graph=True, allow_unused=True
            )
            used = [i for i, s in enumerate(slopes) if s is not None and s.requires_grad]
            for draw in range(DRAWS):
                signs = [torch.randint(2, w.shape, generator=chance) * 2.0 - 1.0 for w in weights]
                inner = torch.stack([(slopes[i] * signs[i]).sum() for i in used]).sum()
                bent = torch.autograd.grad(
                    inner, weights, retain_graph=draw < DRAWS - 1, allow_unused=True
                )
                for total, sign, value in zip(totals, signs, bent, strict=True):
                    if value is not None:
                        total += sign * value
    return [total / (probe.images * DRAWS) for total in totals]
