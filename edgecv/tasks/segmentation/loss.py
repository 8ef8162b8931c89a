"""What a segmentation network learns by: cross-entropy of every pixel, and Dice on request.

    L = CE + d (1 - mean over classes of 2 Σ p t / Σ (p + t))

Dice: Milletari et al., "V-Net", 3DV 2016. With `hardest` h, cross-entropy is of the h worst pixels
of the batch alone (OHEM, Shrivastava et al., CVPR 2016), which helps where most are easy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgecv.data.annotations import IGNORED
from edgecv.errors import ModelError
from edgecv.tasks.probabilities import check_logits

LEAST = 1e-6  # of a probability, whose logarithm is taken


def loss(
    outputs: Tensor, truths: Sequence[np.ndarray], dice: float = 0.0, hardest: float = 1.0
) -> Tensor:
    """The loss of one batch, a scalar, the mean over pixels that are not IGNORED; 0 without any.

    outputs: logits (N, C, h, w), brought to the maps' size bilinearly
    truths:  of each image uint8 (H, W), of the input's size, indices of classes
    dice:    d, weight. hardest: h, 0..1, the share of pixels
    Raises ModelError: outputs of another form, a class that they do not have.
    """
    where = "segmentation loss"
    if not isinstance(outputs, Tensor) or outputs.ndim != 4 or len(outputs) != len(truths):
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError(where, f"outputs are {shape}, expected ({len(truths)}, classes, h, w)")
    maps = torch.from_numpy(np.stack(list(truths))).long()
    seen = maps != IGNORED
    most = int(maps[seen].max()) if seen.any() else 0
    if most >= outputs.shape[1]:
        what = f"a pixel is of class {most} and the network has {outputs.shape[1]}"
        raise ModelError(where, what, "give the builder the class count of the data")
    if outputs.shape[2:] != maps.shape[1:]:
        size = tuple(maps.shape[1:])
        outputs = F.interpolate(outputs, size, mode="bilinear", align_corners=False)
    each = F.cross_entropy(outputs, maps, ignore_index=IGNORED, reduction="none")[seen]
    if hardest < 1:
        each = each.topk(max(1, round(hardest * each.numel())) if each.numel() else 0).values
    total = each.sum() / max(1, each.numel())
    return total + dice * _dice(outputs, maps, seen) if dice else total


def of_classes(outputs: Tensor, holds: str) -> Tensor:
    """Logits of both classes, (N, 2, h, w), where a network has one value a pixel, `holds` a
    "logit" or a "probability": cross-entropy of them is that of the one. Else as they are.

    Raises ModelError: "logit" of a network that ends in a sigmoid.
    """
    if holds not in ("logit", "probability") or not isinstance(outputs, Tensor):
        return outputs
    if outputs.ndim == 3:
        outputs = outputs[:, None]
    if holds == "logit":
        check_logits("segmentation loss", outputs, "holds: probability")
        return torch.cat([torch.zeros_like(outputs), outputs], 1)
    p = outputs.clamp(LEAST, 1 - LEAST)
    return torch.cat([(1 - p).log(), p.log()], 1)


def _dice(logits: Tensor, maps: Tensor, seen: Tensor) -> Tensor:
    """1 - Dice, the mean over the classes that the batch has; 0 where it has none."""
    counted = seen[:, None]
    p = logits.softmax(1) * counted
    t = F.one_hot(maps.where(seen, 0), logits.shape[1]).movedim(3, 1) * counted
    both, sums = (p * t).sum((0, 2, 3)), (p + t).sum((0, 2, 3))
    has = t.sum((0, 2, 3)) > 0
    lost = (1 - 2 * both / sums.clamp(min=1e-6)) * has
    return lost.sum() / max(1, int(has.sum()))
