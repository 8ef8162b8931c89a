"""I(c) = Σ |γ_c|, the scales of the batch norms on the channel's way.

Network slimming (Liu et al., ICCV 2017): training with L + λ Σ |γ| first drives the scales apart
(`sparse_epochs`, `sparsity` of prune; λ = 1e-4 in the paper). Pitfalls: without that training the
scales say little; a network without batch norm has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group, rows
from edgecv.methods.pruning.probe import Probe

ADDITIVE = False


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor | None]:  # noqa: ARG001
    found: list[Tensor | None] = []
    for group in groups:
        total = torch.zeros(group.width)
        for member in group.norms():
            total += group.summed(member, rows(member).detach().abs().sum(1))
        found.append(total if group.norms() else None)
    return found
