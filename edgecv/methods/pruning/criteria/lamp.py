"""I(c) = ‖w_c‖² / Σ_{j: ‖w_j‖ ≥ ‖w_c‖} ‖w_j‖²: a norm that can be compared between layers.

Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, of channels in
place of weights: the largest of every layer has score 1, so that no layer is emptied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.criteria.l2 import squares
from edgecv.methods.pruning.groups import Group
from edgecv.methods.pruning.probe import Probe

ADDITIVE = True


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:  # noqa: ARG001
    return [adaptive(squares(group)) for group in groups]


def adaptive(norms: Tensor) -> Tensor:
    """Each squared norm over the sum of those that are not below it; float (width,)."""
    order = torch.argsort(norms, stable=True)
    tails = norms[order].flip(0).cumsum(0).flip(0).clamp_min(1e-30)
    found = torch.empty_like(norms)
    found[order] = norms[order] / tails
    return found
