"""How far two forms are apart, summed image after image: memory holds the tensors of one image.

What SQNR is, `edgecv.runtime.fidelity` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecv.bundling.inference import Answers
from edgecv.diagnosis.parity.layers import Form, Sample
from edgecv.diagnosis.parity.matching import Pair
from edgecv.errors import ModelError
from edgecv.runtime.fidelity import FEW, Energy, Parity, compare, compare_all
from edgecv.runtime.spec import joined

__all__ = ["FEW", "Energy", "answers", "inside", "outputs"]


def inside(a: Form, b: Form, xs: Sequence[Sample], pairs: Sequence[Pair]) -> list[Energy]:
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


def answers(form: Form, xs: Sequence[Sample]) -> Answers:
    """Every output of float images (1, C, H, W), one at a time: (N, ...) each, channels first."""
    rows = [form.answers(x) for x in xs]
    return tuple(joined(column) for column in zip(*rows, strict=True))


def outputs(
    ref: np.ndarray | Answers, out: np.ndarray | Answers, kinds: Mapping[str, str] | None = None
) -> Parity:
    """Answers compared: the first outputs' rows (N, numbers), or all that kinds names."""
    if isinstance(ref, np.ndarray) or isinstance(out, np.ndarray):
        return compare(np.asarray(ref), np.asarray(out), next(iter((kinds or {}).values()), None))
    named: Mapping[str, str | None] = kinds or {str(i): None for i in range(len(ref))}
    if len(named) != len(ref) or len(ref) != len(out):
        what = f"{len(ref)} outputs before, {len(out)} after"
        raise ModelError("parity", what, "these are different networks")
    return compare_all(ref, out, named)
