"""How long, how fast and on what a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Plan:
    """How to train. Learning rate in the optimizer's units; shift in pixels.

    batch_size: None is 64, or a power of two that leaves 16 steps in an epoch of a small set
    scale, colour, mosaic: where the task augments so (`edgecv.tasks.base.Task.augments`): made up
                1 + scale times larger or smaller; 0..1 of contrast; the share that are mosaics
    """

    epochs: int
    batch_size: int | None = None
    optimizer: str = "adamw"
    lr: float = 3e-3
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    ema: float = 0.0
    flip: bool = True
    shift: int = 2
    scale: float = 0.0
    colour: float = 0.0
    mosaic: float = 0.0

    def batch(self, images: int) -> int:
        """Images per step."""
        if self.batch_size:
            return min(self.batch_size, images)
        return min(64, max(4, 1 << max(1, images // 16).bit_length() - 1), images)


def learning_rate(plan: Plan, step: int, steps_per_epoch: int) -> float:
    """lr(t): linear warm-up, then cosine to zero (Loshchilov & Hutter 2017), step, or constant."""
    total = max(1, plan.epochs * steps_per_epoch)
    warm = plan.warmup_epochs * steps_per_epoch
    if step < warm:
        return plan.lr * (step + 1) / (warm + 1)
    t = (step - warm) / max(1.0, total - warm)
    if plan.schedule == "cosine":
        return plan.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, t)))
    if plan.schedule == "step":
        return plan.lr * (0.1 ** (int(t >= 0.5) + int(t >= 0.75)))
    return plan.lr
