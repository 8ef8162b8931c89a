"""Training pictures changed at random where what is true of them lies nowhere in them.

Pictures are uint8 (N, H, W, C). Tasks go to devices, and `edgecv.data` does not: this module stays
behind with it (`edgecv.device.kit`), so that tasks name nothing that is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecv.data.augment import moved, recoloured

if TYPE_CHECKING:
    from edgecv.methods.training.plan import Plan


def recoloured_all(pixels: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Every picture in other colours, as the plan's `colour` says; as they are where it is 0."""
    if not plan.colour:
        return pixels
    return np.stack([recoloured(image, plan.colour, rng) for image in pixels])


def augmented(pixels: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Every picture mirrored, shifted and in other colours, as the plan says."""
    return recoloured_all(moved(pixels, plan, rng), plan, rng)
