"""L = L_taught + λ/2 Σ α²: `edgecv.methods.training.loop` of a network with quantizers.

L_taught is the loss with a teacher (`methods.distillation.distill_loss`), the sum PACT's decay of
its clips. Batch norm and steps stand still from a given epoch on; a loss that ends far above where
it began is an error.

Pitfall: batch statistics keep a layer's output at its size whatever the learning rate does to its
weights; statistics that stand still do not, and channels with a small σ blow up. The rate falls to
a tenth with the freeze.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.context import Context
from edgecv.data.images import Images
from edgecv.errors import StageError
from edgecv.methods.distillation import distill_loss as distillation
from edgecv.methods.qat.attach import of
from edgecv.methods.training.loop import Trainer
from edgecv.methods.training.plan import Plan

PROBE = 4  # batches that tell the loss before training
LATE_RATE = 0.1  # of the schedule's learning rate, once batch norm stands still


@dataclass(frozen=True)
class DistillLoss(distillation.DistillLoss):
    """What training with quantizers adds.

    clip_decay: λ
    freeze_from: the first epoch (counted from 0) with batch norm and steps frozen
    """

    clip_decay: float = 0.0
    freeze_from: int = 0


class QuantizingTrainer(Trainer):
    """A Trainer for a network with quantizers. Raises StageError where the loss diverges."""

    distill_loss: DistillLoss

    def __init__(
        self,
        module: nn.Module,
        images: Images,
        plan: Plan,
        context: Context,
        distill_loss: DistillLoss,
    ) -> None:
        super().__init__(module, images, plan, context, distill_loss)
        self.before, self.lr = 0.0, plan.lr
        self.quantizers: list[Any] = list(of(module).values())
        self.clips = [q.alpha for q in self.quantizers if hasattr(q, "alpha")]

    def fit(self) -> dict[str, Any]:
        """As Trainer.fit; the facts have the loss before training too."""
        self.before = self._probe()  # before a checkpoint is read: a resumed run agrees
        return {"loss_before": round(self.before, 6), **super().fit()}

    def _probe(self) -> float:
        """The mean loss of a few batches in training mode; the network is left as it was."""
        self.module.train()
        kept = {k: v.clone() for k, v in self.module.state_dict().items()}
        losses = []
        with torch.no_grad():
            for _, (x, y) in zip(range(PROBE), self._batches(0), strict=False):
                losses.append(float(self.loss(x, y)))
        self.module.load_state_dict(kept)
        return sum(losses) / len(losses)

    def mode(self, epoch: int) -> None:
        super().mode(epoch)
        late = epoch >= self.distill_loss.freeze_from
        self.plan = replace(self.plan, lr=self.lr * (LATE_RATE if late else 1.0))
        for part in self.module.modules():
            if late and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        for quantizer in self.quantizers:
            quantizer.frozen = late

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = super().loss(x, y)
        if self.clips:
            loss = loss + 0.5 * self.distill_loss.clip_decay * torch.cat(self.clips).square().sum()
        return loss

    def _epoch(self, epoch: int, total: int) -> None:
        super()._epoch(epoch, total)
        found = len(self.images.classes) if self.task else int(self.images.labels.max()) + 1
        classes = max(2, found)
        if self.losses[-1] > 2 * self.before + 0.5 * math.log(classes):
            raise StageError(
                self.context.where,
                f"diverged: loss {self.losses[-1]:.3g} in epoch {epoch + 1}, "
                f"{self.before:.3g} before training",
                f"lower lr (now {self.lr:g}), or raise weight_bits or activation_bits",
            )
