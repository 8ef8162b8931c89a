"""score(groups, probe) → one float tensor (width,) for each group: how much each channel matters.

A criterion is one file. `ADDITIVE` says whether its scores are on one scale over the whole network
and add up (an effect on the loss); others are compared after division by their group's mean.
A group for which a criterion has nothing to go by gets None, and stays as it is.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from edgecv.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor

    from edgecv.methods.pruning.groups import Group
    from edgecv.methods.pruning.probe import Probe

log = logging.getLogger(__name__)


def names() -> list[str]:
    """The criteria, found by listing this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def criterion(name: str) -> ModuleType:
    """The criterion's own module."""
    return import_module(f"{__name__}.{name}")


def score(name: str, groups: Sequence[Group], probe: Probe) -> tuple[list[Group], list[Tensor]]:
    """The groups that could be scored, and their scores. Raises UnsupportedError where none could.

    Scores of criteria that are not additive have mean 1 in each group.
    """
    import torch

    made = criterion(name)
    found, scores = [], []
    for group, value in zip(groups, made.score(groups, probe), strict=True):
        if value is None or not bool(torch.isfinite(value).all()):
            log.warning("%s: %s says nothing of %s: kept", probe.context.where, name, group.name)
            continue
        value = value.detach().float()
        found.append(group)
        scores.append(value if made.ADDITIVE else value / (value.mean() + 1e-12))
    if not found:
        hint = (made.__doc__ or "").strip().splitlines()[0]
        raise UnsupportedError(probe.context.where, f"{name} says nothing of any layer", hint)
    return found, scores
