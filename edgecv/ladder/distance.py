"""How far two forms are apart, summed image after image: memory holds the tensors of one image.

    SQNR = 10 log10(sum (ref - mean)^2 / sum (ref - out)^2) dB

mean is the reference's own, element by element over the images: what is the same for all of them
says nothing of any, and a network whose answers hardly move would hide any error behind it. With
fewer than four images mean is left out. cosine = sum ref out / (|ref| |out|).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecv.ladder.layers import Form
from edgecv.ladder.matching import Pair
from edgecv.parity import Parity, compare

BEST_DB = 200.0
FEW = 4  # images, below which a mean over them says too little


@dataclass
class Energy:
    """Sums over a tensor: of the reference and its square, the other squared, the product, the
    error squared; and how many images were added."""

    ref: float = 0.0
    out: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    finite: bool = True
    count: int = 0
    total: np.ndarray | None = None

    def add(self, ref: np.ndarray, out: np.ndarray) -> None:
        a, b = ref.astype(np.float64).reshape(-1), out.astype(np.float64).reshape(-1)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            self.finite = False
            return
        self.ref += float(a @ a)
        self.out += float(b @ b)
        self.product += float(a @ b)
        self.noise += float((a - b) @ (a - b))
        self.count += 1
        self.total = a if self.total is None else self.total + a

    @property
    def signal(self) -> float:
        """Of the reference: what differs between images; all of it where they are few."""
        if self.count < FEW or self.total is None:
            return self.ref
        return max(0.0, self.ref - float(self.total @ self.total) / self.count)

    @property
    def sqnr_db(self) -> float:
        """At most 200; -200 where a number is not finite."""
        if not self.finite:
            return -BEST_DB
        if self.noise <= 1e-20 * self.ref:
            return BEST_DB
        return float(np.clip(10 * np.log10(max(self.signal, 1e-30) / self.noise),
                             -BEST_DB, BEST_DB))  # fmt: skip

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
    """Answers (N, classes) compared; sqnr_db as above, -200 where a number is not finite."""
    energy = Energy()
    for a, b in zip(ref, out, strict=True):
        energy.add(a, b)
    if energy.finite:
        return replace(compare(ref, out), sqnr_db=energy.sqnr_db)
    agreed = float((np.nan_to_num(ref).argmax(1) == np.nan_to_num(out).argmax(1)).mean())
    return Parity(0.0, float("inf"), -BEST_DB, agreed, len(ref))
