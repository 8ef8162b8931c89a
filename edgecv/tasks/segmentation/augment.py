"""Training pictures of a segmentation network changed at random, with their maps.

In this order: made smaller or larger and cut, mirror, colour. Pixels that a picture does not cover
are IGNORED in its map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecv.data import augment
from edgecv.data.annotations import IGNORED

if TYPE_CHECKING:
    from edgecv.methods.training.plan import Plan


def augmented(
    pixels: np.ndarray, truths: Sequence[np.ndarray], plan: Plan, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A batch and its maps, changed as the plan says; the arguments are left as they are.

    pixels: uint8 (N, H, W, C). truths: of each uint8 (H, W)
    plan:   scale, shift, flip, colour
    """
    made, maps = np.empty_like(pixels), []
    size = (pixels.shape[1], pixels.shape[2])
    for i, truth in enumerate(truths):
        lies = augment.drawn(size, plan.scale, plan.shift, rng)
        picture, index = np.full_like(pixels[i], augment.PAD), np.full_like(truth, IGNORED)
        augment.lay(picture, pixels[i], lies, (0, 0, *size))
        augment.lay(index[..., None], truth[..., None], lies, (0, 0, *size), "nearest")
        if plan.flip and rng.random() < 0.5:
            picture, index = picture[:, ::-1], index[:, ::-1]
        made[i] = augment.recoloured(picture, plan.colour, rng) if plan.colour else picture
        maps.append(np.ascontiguousarray(index))
    return made, maps
