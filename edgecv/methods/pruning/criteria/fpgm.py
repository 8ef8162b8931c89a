"""I(c) = Σ_j ‖f_c - f_j‖₂: remove the filters nearest to the geometric median of their group.

What is near the median the others can stand in for. He et al., "Filter Pruning via Geometric
Median", CVPR 2019; f_c is everything that writes channel c, end to end.
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
        squared = torch.zeros(group.width, group.width)
        for member in group.producers():
            filters = rows(member).detach()[member.at]
            if len(filters) == group.width:  # in the order of the group's channels
                filters = filters[member.of.argsort()]
                squared += torch.cdist(filters, filters).square()
        found.append(squared.sqrt().sum(1))
    return found
