"""I(c) = 1 - APoZ(c),  APoZ = share of zeros among what the layers behind read of channel c.

Hu et al., "Network Trimming", arXiv 1607.03250, 2016. Pitfall: only where a ReLU stands before the
reader is a zero a silent neuron; a group in which nothing is ever zero (SiLU, linear bottlenecks)
is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group, Member
from edgecv.methods.pruning.probe import Probe, by_channel, reading

ADDITIVE = False


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor | None]:
    alive = [torch.zeros(g.width) for g in groups]
    places = [torch.zeros(g.width) for g in groups]

    def seen(index: int, member: Member, x: Tensor) -> None:
        group = groups[index]
        alive[index] += by_channel(group, member, (x != 0).float()).sum(0)
        places[index] += by_channel(group, member, torch.ones_like(x)).sum(0)

    with torch.no_grad(), reading(groups, seen):
        for x, _ in probe.batches:
            probe.module(x)
    shares = [a / n.clamp_min(1) for a, n in zip(alive, places, strict=True)]
    return [None if bool((s == 1).all()) else s for s in shares]
