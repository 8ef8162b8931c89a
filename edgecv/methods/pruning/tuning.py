"""What trains beside the fine-tuning: sparse scales, batch-norm statistics, the control.

The control trains the pruned shape from random weights for as many epochs as the pruned network saw
in all, dense training included (Liu et al., "Rethinking the Value of Network Pruning", ICLR 2019:
it beats many published methods). Pitfall: a control on less training proves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.context import Context
from edgecv.methods.pruning.probe import probe
from edgecv.methods.training.judging import judged
from edgecv.methods.training.loop import Trainer
from edgecv.methods.training.plan import Plan
from edgecv.models.edits import Edit, replay
from edgecv.models.model import Model


class Slimming(Trainer):
    """L + λ Σ |γ| over the scales of all batch norms: network slimming (Liu et al., ICCV 2017)."""

    def __init__(self, module: nn.Module, plan: Plan, context: Context, sparsity: float) -> None:
        super().__init__(module, context.images("train"), plan, context)
        kind = nn.modules.batchnorm._BatchNorm
        self.scales = [m.weight for m in module.modules() if isinstance(m, kind) and m.affine]
        self.sparsity = sparsity

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        scales = sum((s.abs().sum() for s in self.scales), start=torch.zeros(()))
        return super().loss(x, y) + self.sparsity * scales


def recalibrate(module: nn.Module, context: Context, samples: int) -> None:
    """Measure the batch norms' means and variances anew; nothing else changes."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [m for m in module.modules() if isinstance(m, kind) and m.track_running_stats]
    if not norms:
        return
    batches = probe(module, context, samples).batches
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    with torch.no_grad():
        for x, _ in batches:
            if len(x) > 1:  # one value of a channel has no variance
                module(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


def scratch(
    model: Model, edits: Sequence[Edit], plan: Plan, context: Context, where: str
) -> dict[str, Any]:
    """Train the shape with those edits from random weights; {"epochs", "lr", "top1"}, or in place
    of the last what the task measures."""
    torch.manual_seed(context.seed)
    module = model.build()
    for edit in edits:
        replay(module, edit)
    folder = context.out / "scratch"
    folder.mkdir(exist_ok=True)
    own = replace(context, out=folder, where=f"{where}, control")
    Trainer(module, own.images("train"), plan, own).fit()
    found = judged(module, context.images("test"), context)
    shutil.rmtree(folder)
    return {"epochs": plan.epochs, "lr": plan.lr, **context.accuracy(found)}


def epochs_before(model: Model) -> int:
    """How many epochs the network has seen in the steps before."""
    return sum(int(f.get("epochs", 0)) for f in model.facts.values() if isinstance(f, dict))
