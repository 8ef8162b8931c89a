"""L = (1 − a) CE + a D(z_s, z_t) + m ‖z_t − z_s‖² + Σ w F(features): the loss of a taught network.

D is T² KL (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015), DKD or DIST
(`losses.py`). Without a teacher it is cross-entropy alone.

Pitfalls: the teacher is in evaluation mode and sees the very images the student sees, mirrored and
shifted as they are (Beyer et al., "A good teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.behaviour import as_trained
from edgecv.methods.distillation import losses
from edgecv.methods.distillation.features import Features
from edgecv.methods.training.train_mode import first
from edgecv.tasks.base import Task

TASK_SHARE = 4.0  # a distance of a quarter of the outputs' variance weighs as a loss of 1


@dataclass(frozen=True)
class DistillLoss:
    """What is learned from whom.

    teacher: a network in eval mode, or None. share: a. temperature: T. mse: m.
    logits: D. beta: DKD's. features: pairs with their losses, or None
    """

    teacher: nn.Module | None = None
    share: float = 0.5
    temperature: float = 4.0
    mse: float = 0.0
    _: KW_ONLY
    logits: Literal["soft", "dkd", "dist"] = "soft"
    beta: float = 8.0
    features: Features | None = None
    task: Task | None = None  # whose loss stands in place of cross-entropy

    @property
    def adapters(self) -> nn.Module | None:
        """What is trained beside the network and is no part of it."""
        return self.features.adapters if self.features else None

    def loss(self, module: nn.Module, x: Tensor, y: Tensor, smoothing: float) -> Tensor:
        """Of one batch: images (N, C, H, W) and labels (N,); smoothing: of the labels."""
        if self.task is not None:
            return self._of_task(module, x, y)
        with self._reading() as (own, other):
            logits = first(module(x))
            wanted = self._asked(x)
        loss = functional.cross_entropy(logits, y, label_smoothing=smoothing)
        if wanted is None:
            return loss
        loss = (1 - self.share) * loss + self.share * self._apart(logits, wanted, y)
        if self.mse:
            loss = loss + self.mse * functional.mse_loss(logits, wanted)
        return loss + self.features.loss(own, other) if self.features else loss

    def _of_task(self, module: nn.Module, x: Tensor, truths: Any) -> Tensor:
        """The task's own loss, and with a teacher the distance of all outputs."""
        assert self.task is not None
        with self._reading() as (own, other):
            answers = module(x)
            if self.teacher is not None:
                form = as_trained(self.teacher) if module.training else nullcontext()
                with torch.no_grad(), form:
                    wanted = self.teacher(x)
        loss = self.task.loss(answers, truths)
        if self.teacher is None:
            return loss
        apart = losses.answers(answers, wanted)
        loss = (1 - self.share) * loss + self.share * apart * TASK_SHARE
        return loss + self.features.loss(own, other) if self.features else loss

    def _reading(self) -> AbstractContextManager[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        return self.features.reading() if self.features else nullcontext(({}, {}))

    def _asked(self, x: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            return first(self.teacher(x))

    def _apart(self, logits: Tensor, wanted: Tensor, y: Tensor) -> Tensor:
        if self.logits == "dkd":
            return losses.dkd(logits, wanted, y, self.temperature, self.beta)
        if self.logits == "dist":
            return losses.dist(logits, wanted, self.temperature)
        return losses.soft_targets(logits, wanted, self.temperature)
