"""How much each place of a detector's maps matters: where it finds nothing, boxes mean nothing.

    w_t(y, x) = ε + Π_u max_c u(c, y, x)     u: probabilities on maps of that size, other than t

What a probability is multiplied with, and what a box stands for. Networks are trained where objects
are: elsewhere their boxes and classes are noise that no reader sees, and a student that is held to
it has less left for the rest. Of one map alone, or of no maps, all of it matters: w = 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from edgecv.graphs.onnx.bounded import BOUNDS
from edgecv.graphs.onnx.index import Index

LEAST = 0.01  # ε: of scores that metrics still look at
PROBABILITIES = ("Sigmoid", "HardSigmoid")


def probabilities(model: Any, tensors: Collection[str]) -> set[str]:
    """Those tensors of an onnx.ModelProto that are numbers from 0 to 1."""
    makers = Index(model.graph).makers
    return {name for name in tensors if makers[name].op_type in BOUNDS.keys() & {*PROBABILITIES}}


def weights(
    names: Sequence[str], values: Sequence[np.ndarray], probable: Collection[str]
) -> list[np.ndarray]:
    """The weight of each tensor of one image, (1, 1, H, W) float32; (1,) where all matters.

    names, values: tensors (1, ...); probable: which of them are probabilities
    """
    best = {
        name: value.max(1, keepdims=True)
        for name, value in zip(names, values, strict=True)
        if name in probable and value.ndim == 4
    }
    found = []
    for name, value in zip(names, values, strict=True):
        others = [
            best[n]
            for n in best
            if n != name and value.ndim == 4 and best[n].shape[2:] == value.shape[2:]
        ]
        weight = np.ones(1, np.float32)
        for other in others:
            weight = weight * other
        found.append((LEAST + weight).astype(np.float32) if others else weight)
    return found


def relevance(weighted: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray | None:
    """One map (H, W) of how much each place of the image matters, by the nearest places of the maps
    that say it; None where none does."""
    maps = [w[0, 0] for w in weighted if w.ndim == 4]
    if not maps:
        return None
    total = np.zeros(size, np.float32)
    for one in maps:
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, one.shape, strict=True))
        total = np.maximum(total, one[rows[:, None], columns[None]])
    return total
