"""Are the constants of a layer those of its twin? Compared directly, in real numbers.

    w ~ w' :  10 log10(sum w^2 / sum (w - w')^2) >= 40 dB in float (bfloat16 keeps 50), and as far
    apart as the grid's steps in int8 (s^2 / 12 for each weight, some 35-50 dB per channel)

What is the same but for the order of its axes is named: a kernel that is turned, channels in
reverse, a dense layer whose columns follow an image flattened in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecv.diagnosis.parity.distance import Energy
from edgecv.diagnosis.parity.layers import Form
from edgecv.diagnosis.parity.matching import Pair

FLOAT_DB, INT8_DB = 40.0, 15.0


@dataclass(frozen=True)
class Difference:
    """role: "weight" or "bias"; channels: output channels that differ, of how many in all.

    order: the permutation after which they agree, in words; "" when there is none
    """

    role: str
    sqnr_db: float
    largest: float
    channels: int
    of: int
    order: str = ""

    def __str__(self) -> str:
        if self.order:
            return f"its {self.role}s are the same numbers in another order: {self.order}"
        share = f"{self.channels} of {self.of} output channels"
        return (
            f"its {self.role}s differ in {share} (SQNR {self.sqnr_db:.1f} dB, "
            f"largest difference {self.largest:.3g})"
        )


def differences(
    a: Form, b: Form, pair: Pair, image: tuple[int, ...] = ()
) -> list[Difference] | None:
    """What differs between the constants of a pair; [] when nothing does, None when they cannot
    be read on both sides.

    image: the shape (1, C, H, W) of what a dense layer's input was flattened from, if known
    """
    ours, theirs = a.constants(pair.a), b.constants(pair.b)
    if "weight" not in ours or "weight" not in theirs:
        return None
    least = FLOAT_DB if a.precision == b.precision == "fp32" else INT8_DB
    found = []
    for role in ("weight", "bias"):
        one, two = ours.get(role), theirs.get(role)
        if one is None or two is None or one.size != two.size:
            continue
        wrong = _compare(role, one, two.reshape(one.shape), least, image)
        if wrong:
            found.append(wrong)
    return found


def _compare(
    role: str, one: np.ndarray, two: np.ndarray, least: float, image: tuple[int, ...]
) -> Difference | None:
    total = _distance(one, two)
    rows = [_distance(x, y) for x, y in zip(one, two, strict=True)]
    # a bias is an offset beside the layer's sums: int8 moves it (bias correction), and on purpose
    low = 3.0 if role == "bias" and least == INT8_DB else least
    scale = float(np.abs(one).max(initial=0.0))
    far = [float(np.abs(x - y).max(initial=0.0)) for x, y in zip(one, two, strict=True)]
    # not <=, so that what is not a number counts
    wrong = sum(row < low and not d <= 1e-3 * scale for row, d in zip(rows, far, strict=True))
    if not wrong or (role == "bias" and total >= low):
        return None
    order = next((name for name, t in _orders(two, image) if _distance(one, t) >= least), "")
    return Difference(role, total, float(np.max(far)), wrong, len(rows), order)


def _distance(one: np.ndarray, two: np.ndarray) -> float:
    energy = Energy()
    energy.add(one, two)
    return energy.sqnr_db


def _orders(w: np.ndarray, image: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    if w.ndim == 4:
        o, i, h, k = w.shape
        if h == k:
            yield "kernels with height and width exchanged", w.transpose(0, 1, 3, 2)
        yield "kernels rotated by 180°", w[:, :, ::-1, ::-1]
        if i > 1:
            yield "input channels in reverse (RGB and BGR)", w[:, ::-1]
            read = np.ascontiguousarray(w).reshape(o, h, k, i).transpose(0, 3, 1, 2)
            yield "OHWI read as OIHW", read
        if o > 1:
            yield "output channels in reverse", w[::-1]
    if w.ndim == 2 and len(image) == 4 and w.shape[1] == np.prod(image):
        _, c, y, x = image
        last = w.reshape(-1, y, x, c).transpose(0, 3, 1, 2).reshape(w.shape)
        first = w.reshape(-1, c, y, x).transpose(0, 2, 3, 1).reshape(w.shape)
        yield "columns for an image flattened as (H, W, C), not (C, H, W)", last
        yield "columns for an image flattened as (C, H, W), not (H, W, C)", first
