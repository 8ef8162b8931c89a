"""Two steps: one-bit inputs with real weights, then both (Bulat & Tzimiropoulos 2019; ReActNet).

Over each step the annealed estimator's tanh goes from soft to sharp, t = 0.1 ... 10.
"""

from __future__ import annotations

from typing import Any

from edgecv.methods.binary.modules import SHARPEST, OneBit
from edgecv.methods.training.loop import Trainer

SOFTEST = 0.1


class BinaryTrainer(Trainer):
    """A Trainer that tells one-bit layers where in the schedule they are."""

    first: int = 0  # epochs with real weights
    # behind a sign that is the same for all images a batch norm multiplies gradients by 1 / √eps
    doubt = (
        "train the network before it gets one bit: gradients overflow in layers that see nothing "
        "vary yet; or give fewer layers one bit (layers: auto)"
    )

    def mode(self, epoch: int) -> None:
        super().mode(epoch)
        own = epoch >= self.first
        start, end = (self.first, self.plan.epochs) if own else (0, self.first)
        done = (epoch - start) / max(1, end - start - 1)
        for part in self.module.modules():
            if isinstance(part, OneBit):
                part.one_bit = own
                part.sharpness = SOFTEST * (SHARPEST / SOFTEST) ** min(1.0, done)

    def fit(self) -> dict[str, Any]:
        found = super().fit()
        for part in self.module.modules():
            if isinstance(part, OneBit):
                part.one_bit = True
        return found
