"""Training pictures of a detector changed at random, with their boxes.

In this order: mosaic (four pictures of the batch around a point; Bochkovskiy et al., "YOLOv4",
2020) or one picture made smaller or larger, then mirror, then colour.

A box of which little is left in the picture is neither taught nor denied: it becomes a crowd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecv.data import augment
from edgecv.data.annotations import PictureBoxes
from edgecv.runtime.placement import Placement

if TYPE_CHECKING:
    from edgecv.methods.training.plan import Plan

SEEN = 0.3  # of a box, at the least, for it to be taught
SMALLEST = 2.0  # pixels of a side, likewise
TILE = (0.4, 0.9)  # how large a picture of a mosaic becomes, of its size


def augmented(
    pixels: np.ndarray, truths: Sequence[PictureBoxes], plan: Plan, rng: np.random.Generator
) -> tuple[np.ndarray, list[PictureBoxes]]:
    """A batch and its boxes, changed as the plan says; the arguments are left as they are.

    pixels: uint8 (N, H, W, C). truths: of each, in pixels of these pictures
    plan:   mosaic (share of pictures), scale, shift, flip, colour
    """
    made, boxes = np.empty_like(pixels), []
    size = (pixels.shape[1], pixels.shape[2])
    for i in range(len(pixels)):
        if rng.random() < plan.mosaic:
            others = rng.integers(0, len(pixels), 3)
            four = [i, *map(int, others)]
            picture, truth = mosaic(pixels[four], [truths[k] for k in four], rng)
        else:
            lies = augment.drawn(size, plan.scale, plan.shift, rng)
            whole = (0, 0, *size)
            picture = np.full_like(pixels[i], augment.PAD)
            augment.lay(picture, pixels[i], lies, whole)
            truth = moved(truths[i], lies, whole)
        if plan.flip and rng.random() < 0.5:
            picture, truth = picture[:, ::-1], mirrored(truth, size[1])
        made[i] = augment.recoloured(picture, plan.colour, rng) if plan.colour else picture
        boxes.append(truth)
    return made, boxes


def mosaic(
    pixels: np.ndarray, truths: Sequence[PictureBoxes], rng: np.random.Generator
) -> tuple[np.ndarray, PictureBoxes]:
    """Four pictures, uint8 (4, H, W, C), in four corners of one; each touches the point between."""
    h, w = size = (pixels.shape[1], pixels.shape[2])
    y, x = (int(side * rng.uniform(0.3, 0.7)) for side in size)
    canvas = np.full_like(pixels[0], augment.PAD)
    regions = ((0, 0, y, x), (0, x, y, w), (y, 0, h, x), (y, x, h, w))
    parts = []
    for k, region in enumerate(regions):
        by = rng.uniform(*TILE)
        high, wide = resized = augment.scaled(size, by)
        offset = (y - high if k < 2 else y, x - wide if k % 2 == 0 else x)
        lies = augment.placed(size, resized, offset)
        augment.lay(canvas, pixels[k], lies, region)
        parts.append(moved(truths[k], lies, region))
    return canvas, _joined(parts)


def moved(truth: PictureBoxes, lies: Placement, region: augment.Region) -> PictureBoxes:
    """The boxes of a picture that is laid so, cut to the region that shows it.

    What is out of it is gone; what is hardly in it, or hardly a pixel, becomes a crowd.
    """
    scale = np.array(lies.scale[::-1], np.float32)
    boxes = truth.boxes.reshape(-1, 2, 2) * scale + np.array(lies.offset[::-1], np.float32)
    top, left, bottom, right = augment.shown(lies, region)
    low, high = np.array([left, top], np.float32), np.array([right, bottom], np.float32)
    cut = np.clip(boxes, low, np.maximum(low, high))
    sides, before = cut[:, 1] - cut[:, 0], boxes[:, 1] - boxes[:, 0]
    share = sides.prod(1) / np.maximum(before.prod(1), 1e-9)
    taught = (share >= SEEN) & (sides >= SMALLEST).all(1)
    kept = (sides > 0).all(1)
    area = truth.area * share * scale.prod()
    crowd = truth.crowd | ~taught
    found = cut.reshape(-1, 4).astype(np.float32), truth.index, crowd, area.astype(np.float32)
    return PictureBoxes(*(values[kept] for values in found))


def mirrored(truth: PictureBoxes, width: int) -> PictureBoxes:
    """The boxes of a picture so many pixels wide whose left is its right."""
    boxes = truth.boxes.copy()
    boxes[:, [0, 2]] = width - truth.boxes[:, [2, 0]]
    return PictureBoxes(boxes, truth.index, truth.crowd, truth.area)


def _joined(parts: Sequence[PictureBoxes]) -> PictureBoxes:
    keys = ("boxes", "index", "crowd", "area")
    return PictureBoxes(*(np.concatenate([getattr(p, key) for p in parts]) for key in keys))
