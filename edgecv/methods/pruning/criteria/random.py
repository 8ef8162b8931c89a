"""I(c) ~ U(0, 1): the control. A criterion that is no better than this has found nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecv.methods.pruning.groups import Group
from edgecv.methods.pruning.probe import Probe

ADDITIVE = False


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:
    chance = torch.Generator().manual_seed(probe.context.seed)
    return [torch.rand(group.width, generator=chance) for group in groups]
