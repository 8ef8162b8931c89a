"""I(c) = Σ |w|, over every weight of the group that belongs to channel c.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, summed over the dependency group
(Fang et al., CVPR 2023). Pitfall: a large filter that nothing listens to counts as important.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group, rows
from edgecv.methods.pruning.probe import Probe

ADDITIVE = False


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:  # noqa: ARG001
    found = []
    for group in groups:
        total = torch.zeros(group.width)
        for member in group.members:
            total += group.summed(member, rows(member).detach().abs().sum(1))
        found.append(total)
    return found
