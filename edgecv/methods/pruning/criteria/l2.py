"""I(c) = √Σ w², over every weight of the group that belongs to channel c.

As l1 (Li et al., ICLR 2017; He et al., "Soft Filter Pruning", IJCAI 2018), by the Euclidean norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group, rows
from edgecv.methods.pruning.probe import Probe

ADDITIVE = False


def squares(group: Group) -> Tensor:
    """Σ w² by channel; float (width,)."""
    total = torch.zeros(group.width)
    for member in group.members:
        total += group.summed(member, rows(member).detach().square().sum(1))
    return total


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:  # noqa: ARG001
    return [squares(group).sqrt() for group in groups]
