"""Where a quantized network loses its signal: SQNR of each layer, its own share and what it
inherits.

    SQNR_l     = 10 log10(sum f_l^2 / sum (f_l - q_l)^2)   f float, q quantized, both real
    SQNR_own_l   the same with layer l fed the float network's tensors: its own rounding alone
    drop_l     = (lowest SQNR of what l reads) - SQNR_l

The lowest own SQNR is the layer that quantizes worst; the largest drop is where the noise becomes
visible. saturated is the share of float values beyond the ends of the layer's grid; used is the
part of the grid's range that they need (above 1 the range is too narrow, far below 1 too wide).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecv.diagnosis.parity.distance import Energy
from edgecv.diagnosis.parity.isolated_layers import Apart, open_apart
from edgecv.diagnosis.parity.layers import INPUT, Form, Layer, Sample, image_in, sources
from edgecv.diagnosis.parity.matching import Pair, match

IMAGES = 16


@dataclass
class Noise:
    """One layer's row. All dB; own_db is None where the layer cannot be run on its own."""

    layer: str
    kind: str
    sqnr_db: float
    own_db: float | None
    drop_db: float
    saturated: float
    used: float | None

    def to_json(self) -> dict[str, object]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(self).items()}


@dataclass
class _Sum:
    pair: Pair
    total: Energy = field(default_factory=Energy)
    own: Energy | None = None
    low: float = np.inf
    high: float = -np.inf
    beyond: int = 0
    count: int = 0


def per_layer(a: Form, b: Form, xs: Sequence[Sample]) -> list[Noise]:
    """A row for each layer of b that a has too, in b's order.

    a: float; b: quantized; xs: float32 (1, C, H, W), the first few of which are used
    """
    pairs, _ = match(a, b)
    pairs = [p for p in pairs if p.b.kind != "reshape"]  # the same numbers once more
    if not pairs:  # an engine that cannot be looked into
        return []
    sums = [_Sum(p) for p in pairs]
    picture = Energy()
    apart = open_apart(b, {p.b.tensor: p for p in pairs})
    for x in xs[:IMAGES]:
        _add(a, b, x, sums, picture, apart)
    if apart:
        apart.close()
    quality = {INPUT: picture.sqnr_db} | {s.pair.b.tensor: s.total.sqnr_db for s in sums}
    reads = {layer.tensor: layer.inputs for layer in b.layers}
    return [_row(s, quality, reads) for s in sums]


def _add(
    a: Form, b: Form, x: Sample, sums: list[_Sum], picture: Energy, apart: Apart | None
) -> None:
    one = a.values(x, [s.pair.a.tensor for s in sums])
    two = b.values(x, [INPUT, *(s.pair.b.tensor for s in sums)])
    picture.add(image_in(x), two[INPUT])
    pairs = {s.pair.b.tensor: s.pair.values(one[s.pair.a.tensor], two[s.pair.b.tensor])
             for s in sums}  # fmt: skip
    alone = apart.values(x, {t: f for t, (f, _) in pairs.items()}) if apart else {}
    for s in sums:
        ref, out = pairs[s.pair.b.tensor]
        s.total.add(ref, out)
        if s.pair.b.tensor in alone:
            s.own = s.own or Energy()
            s.own.add(ref, alone[s.pair.b.tensor].reshape(ref.shape))
        s.low, s.high = min(s.low, float(ref.min())), max(s.high, float(ref.max()))
        s.count += ref.size
        if s.pair.b.grid:
            low, high = s.pair.b.grid.ends()
            half = s.pair.b.grid.scale / 2
            s.beyond += int(((ref > high + half) | (ref < low - half)).sum())


def _row(s: _Sum, quality: dict[str, float], reads: dict[str, tuple[str, ...]]) -> Noise:
    layer: Layer = s.pair.b
    worst = min((quality[t] for t in sources(layer.tensor, quality, reads)), default=200.0)
    used = None
    if layer.grid:
        low, high = layer.grid.ends()
        used = (max(s.high, 0.0) - min(s.low, 0.0)) / (high - low)
    return Noise(
        layer=layer.name,
        kind=layer.kind,
        sqnr_db=s.total.sqnr_db,
        own_db=s.own.sqnr_db if s.own else None,
        drop_db=worst - s.total.sqnr_db,
        saturated=s.beyond / max(1, s.count),
        used=used,
    )
