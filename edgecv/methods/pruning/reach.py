"""How much of a network pruning can take: which layers, and what share of the MACs they cost.

    prunable = Σ_g (C_g - k_g) / Σ_g C_g       over groups g of channels that can be removed
    channels = Σ_l removed / Σ_l c_out         over all convolutions and dense layers l
    fixed    = MACs of what neither reads nor writes a channel that can go / all MACs

A ratio is of the first. Where it is large and the MACs hardly move, the layers that cost are those
that stay: the widest are named, with the reason and what frees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from edgecv.context import Context
from edgecv.errors import StageError
from edgecv.methods.pruning import groups
from edgecv.methods.pruning.shapes import Shapes, Widths, example_of, macs, shapes
from edgecv.models.history import percent

LITTLE = 0.8  # of the channels that a ratio asks for; below, it is said
IDLE = 0.1  # of the MACs that a ratio sounds like; below, it is said why
CLOSED = 0.5  # of the MACs; from here on it is said that they stay
NAMED = 3  # layers in a message that stay, and twice as many that can go
TIED = "is tied to the outputs"
CURES = {
    groups.JOINED: "a 1x1 convolution after the concatenation frees what follows",
    groups.HELD: "shorten `keep`",
}
OTHERWISE = "`lowrank` and `quantize` leave channels as they are"


@dataclass(frozen=True)
class Reach:
    """found: the groups that can be pruned. shape: the network with them. widths: channels that
    a layer writes. stay: why its own channels stay, widest first. macs: of one image, all."""

    found: Sequence[groups.Group]
    shape: Shapes
    widths: dict[str, int]
    stay: dict[str, str]
    macs: int

    @classmethod
    def of(
        cls, module: nn.Module, found: Sequence[groups.Group], stay: dict[str, str], about: Context
    ) -> Reach:
        """found, stay: as `groups.survey` answers them."""
        shape = shapes(module, found, example_of(about))
        widths = {layer.product.layer: layer.product.channels[1] for layer in shape.layers}
        goes = {m.name for group in found for m in group.producers()}
        head = shape.layers[-1].product.layer
        kept = sorted(widths.keys() - goes - {head}, key=lambda name: (-widths[name], name))
        reasons = {name: stay.get(name, TIED) for name in kept if widths[name] > 1}
        return cls(found, shape, widths, reasons, macs(module, about))

    def shares(self, widths: Widths) -> dict[str, float]:
        """{"prunable", "channels", "macs"}: what goes at those widths of the groups, 0..1."""
        at, cost = {p.layer: p.channels[1] for p in self.shape.at(widths)}, self.shape.macs()
        shares = {
            "prunable": 1 - sum(widths) / sum(self.shape.full),
            "channels": 1 - sum(at.values()) / sum(self.widths.values()),
            "macs": (cost(self.shape.full) - cost(widths)) / self.macs,
        }
        return {name: round(share, 6) for name, share in shares.items()}

    @property
    def fixed(self) -> float:
        """The share of the MACs that no width of the groups changes, 0..1."""
        moved = sum(m.rows * m.product.macs for m in self.shape.layers if m.reads or m.writes)
        return max(0.0, 1 - moved / self.macs)

    def closed(self) -> str:
        """That most of the MACs cannot be pruned, and why; "" where most can."""
        return self._fixed() if self.fixed >= CLOSED else ""

    def little(self, ratio: float, shares: dict[str, float], align: int) -> str:
        """That a ratio takes out less than it sounds like, and why; "" where it does not."""
        idle, few = shares["macs"] < IDLE * ratio, shares["prunable"] < LITTLE * ratio
        if not idle and not few:
            return self.closed()
        told = (
            f"ratio {ratio:g} takes out {percent(shares['prunable'])} of the channels that can "
            f"be pruned: {percent(shares['channels'])} of all channels, "
            f"{percent(shares['macs'])} of the MACs"
        )
        if few:
            told += f"; widths stay multiples of {align} (align)"
        fixed = self._fixed() if idle else self.closed()
        return f"{told}; {fixed}" if fixed else told

    def nothing(self, where: str, ratio: float, align: int) -> StageError:
        """That no width changes."""
        widest = sorted(self.found, key=lambda group: -group.width)
        what = (
            f"ratio {ratio:g} removes nothing: widths {sorted({g.width for g in widest})} stay "
            f"multiples of {align}; can be pruned: "
            f"{_some([f'{group.name} {group.width}' for group in widest], 2 * NAMED)}"
        )
        if self.fixed:
            what += f"; {self.closed() or f'{percent(self.fixed)} of the MACs cannot be pruned'}"
        return StageError(where, what, "raise ratio, widen the model, or set align lower")

    def _fixed(self) -> str:
        """How many of the MACs stay; the widest layers that do, by reason, and what frees them."""
        told = f"{percent(self.fixed)} of the MACs cannot be pruned"
        widest = list(self.stay)[:NAMED]
        for why in dict.fromkeys(self.stay[name] for name in widest):
            same = [name for name, reason in self.stay.items() if reason == why]
            named = [f"{name} ({self.widths[name]} channels)" for name in same]
            told += f"; {_some(named, NAMED)}: each {why} ({CURES.get(why, OTHERWISE)})"
        return told


def _some(named: list[str], most: int) -> str:
    """The first of them, and how many more there are."""
    more = len(named) - most
    return ", ".join(named[:most]) + (f" and {more} more" if more > 0 else "")
