"""How far two forms are apart, summed image after image: memory holds the tensors of one image.

SQNR = 10 log10(sum ref^2 / sum (ref - out)^2) dB; cosine = sum ref out / (|ref| |out|)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.ladder.layers import Form
from edgecv.ladder.matching import Pair
from edgecv.parity import Parity, compare

BEST_DB = 200.0


@dataclass
class Energy:
    """Sums over a tensor: of the reference squared, the other squared, the product, the error
    squared."""

    ref: float = 0.0
    out: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    finite: bool = True

    def add(self, ref: np.ndarray, out: np.ndarray) -> None:
        a, b = ref.astype(np.float64).reshape(-1), out.astype(np.float64).reshape(-1)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            self.finite = False
            return
        self.ref += float(a @ a)
        self.out += float(b @ b)
        self.product += float(a @ b)
        self.noise += float((a - b) @ (a - b))

    @property
    def sqnr_db(self) -> float:
        """At most 200; -200 where a number is not finite."""
        if not self.finite:
            return -BEST_DB
        if self.noise == 0.0:
            return BEST_DB
        return float(np.clip(10 * np.log10(max(self.ref, 1e-30) / self.noise), -BEST_DB, BEST_DB))

    @property
    def cosine(self) -> float:
        size = (self.ref * self.out) ** 0.5
        return self.product / size if size else float(self.ref == self.out)


def inside(a: Form, b: Form, xs: Sequence[np.ndarray], pairs: Sequence[Pair]) -> list[Energy]:
    """Energy of each pair over the images, both fed the same ones."""
    if len(pairs) > 1 and (a.one_by_one or b.one_by_one):
        return [inside(a, b, xs, [pair])[0] for pair in pairs]
    found = [Energy() for _ in pairs]
    ours, theirs = [p.a.tensor for p in pairs], [p.b.tensor for p in pairs]
    for x in xs:
        one, two = a.values(x, ours), b.values(x, theirs)
        for energy, pair in zip(found, pairs, strict=True):
            energy.add(*pair.values(one[pair.a.tensor], two[pair.b.tensor]))
    return found


def answers(form: Form, xs: Sequence[np.ndarray]) -> np.ndarray:
    """Logits (N, classes) of float images (1, C, H, W), one at a time."""
    return np.stack([form.logits(x) for x in xs])


def outputs(ref: np.ndarray, out: np.ndarray) -> Parity:
    """`edgecv.parity.compare`, also where a number is not finite (-200 dB)."""
    good = np.isfinite(ref).all() and np.isfinite(out).all()
    if good:
        return compare(ref, out)
    agreed = float((np.nan_to_num(ref).argmax(1) == np.nan_to_num(out).argmax(1)).mean())
    return Parity(0.0, float("inf"), -BEST_DB, agreed, len(ref))
