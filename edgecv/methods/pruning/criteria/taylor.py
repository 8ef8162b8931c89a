"""I(c) = e_c / √Σ e,  e_c = mean over images of (Σ x · ∂L/∂x)², over all that is read of channel c.

The effect on the loss of a gate at 1 that closes: Molchanov et al., "Importance Estimation for
Neural Network Pruning", CVPR 2019, with the gate where the channel is read, so that a whole
residual group counts as one. Squared by image, because the mean over images of x · ∂L/∂x is about
zero in a trained network. Between groups the root is compared, the effect of all their channels if
they are independent: sums of squares are 1/n where n channels share an effect, and wide layers were
emptied first; sums of roots are as large as if all effects had one sign, and narrow ones were.
Pitfall: first order, which says little of removing most of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group, Member
from edgecv.methods.pruning.probe import Probe, by_channel, loss, reading

ADDITIVE = True


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:
    totals = [torch.zeros(g.width) for g in groups]
    for x, y in probe.batches:
        effects = [torch.zeros(len(x), g.width) for g in groups]

        def seen(index: int, member: Member, value: Tensor, into: list[Tensor] = effects) -> None:
            def felt(slope: Tensor) -> None:
                into[index] += by_channel(groups[index], member, value.detach() * slope)

            value.register_hook(felt)

        with torch.enable_grad(), reading(groups, seen):
            loss(probe, x.requires_grad_(), y).backward()
        for total, effect in zip(totals, effects, strict=True):
            total += effect.square().sum(0)
    probe.module.zero_grad()
    means = [total / probe.images for total in totals]
    return [mean / mean.sum().sqrt().clamp_min(1e-12) for mean in means]
