"""The first layer that diverges, found by halving.

Some layers hold everything that is alive: every path from the image to the answer leads through
them (`cuts`). Halving over those needs log2 n comparisons of one tensor each; the stretch between
the last that agrees and the first that does not is then looked at layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecv.diagnosis.parity.distance import Energy, inside
from edgecv.diagnosis.parity.layers import Form, Sample, cuts, sources
from edgecv.diagnosis.parity.matching import Pair, match

IMAGES = 4


@dataclass(frozen=True)
class Divergence:
    """pair: the first layer that differs; before: what it reads, by the tensor's name in b.

    found_by: how layers were matched ("name", "module", "order"); looked_at: tensors compared
    """

    pair: Pair
    energy: Energy
    before: dict[str, float]
    found_by: str
    looked_at: int
    layers: int

    @property
    def inputs_db(self) -> float | None:
        """SQNR of the worst input; None where no input was matched."""
        return min(self.before.values()) if self.before else None


def first_divergence(a: Form, b: Form, xs: Sequence[Sample], least_db: float) -> Divergence | None:
    """Where b leaves a: the first pair below least_db whose inputs are above it.

    xs: float32 (1, C, H, W) images, the first few of which are used. None where every layer that
    was matched agrees, or none was.
    """
    some = xs[:IMAGES]
    pairs, way = match(a, b)
    known: dict[int, Energy] = {}

    def look(indices: Sequence[int]) -> None:
        new = [i for i in indices if i not in known]
        found = inside(a, b, some, [pairs[i] for i in new]) if new else []
        known.update(zip(new, found, strict=True))

    def agrees(index: int) -> bool:
        return known[index].sqnr_db >= least_db

    if not pairs:
        return None
    low, high = _halved(b, pairs, look, agrees)
    stretch = range(low + 1, high + 1)
    look(stretch)
    wrong = [i for i in stretch if not agrees(i)]
    if not wrong:
        return None
    first = wrong[0]
    place = {pair.b.tensor: i for i, pair in enumerate(pairs)}
    reads = {layer.tensor: layer.inputs for layer in b.layers}
    before = [place[t] for t in sources(pairs[first].b.tensor, place, reads)]
    look(before)
    quality = {pairs[i].b.tensor: known[i].sqnr_db for i in before}
    return Divergence(pairs[first], known[first], quality, way, len(known), len(pairs))


def _halved(
    b: Form, pairs: list[Pair], look: Callable[[Sequence[int]], None], agrees: Callable[[int], bool]
) -> tuple[int, int]:
    """(last pair that agrees or -1, first cut that does not or the end)."""
    place = {pair.b.tensor: i for i, pair in enumerate(pairs)}
    whole = [place[t] for t in (b.layers[i].tensor for i in cuts(b.layers)) if t in place]
    low, high = -1, len(whole)  # whole[high] diverges; the end, where nothing is known, may
    while high - low > 1:
        middle = (low + high) // 2
        look([whole[middle]])
        if agrees(whole[middle]):
            low = middle
        else:
            high = middle
    start = whole[low] if low >= 0 else -1
    return start, whole[high] if high < len(whole) else len(pairs) - 1
