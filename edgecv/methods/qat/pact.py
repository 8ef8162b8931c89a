"""x̂ = s · round(clip(x, −α Qn / Qp, α) / s), s = α / Qp: activations with a learned clip α.

Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks" (2018):
∂x̂/∂α = 1 where x ≥ α and 0 inside, so only clipped values raise α, and the decay λ α² / 2 in the
loss lowers it. Behind a ReLU Qn = 0, which is the paper's case; elsewhere the negative side moves
with α in proportion. Pitfall: without the decay α stays where the largest values are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecv.methods.qat.lsq import TINY, FakeQuantize


class Pact(nn.Module):
    """A fake-quantizer of activations with a learned clip.

    low, high: integers (Qn, Qp). most: α never exceeds it (6 behind a ReLU6).
    """

    def __init__(self, low: int, high: int, most: float | None = None) -> None:
        super().__init__()
        self.low, self.high, self.most = low, high, most
        self.alpha = nn.Parameter(torch.ones(1))
        self.frozen = False

    def start(self, mean: Tensor, low: Tensor, high: Tensor) -> None:
        """Set α to the largest value seen. mean: not used."""
        del mean
        self.alpha.data.copy_(torch.maximum(high, low * self.high / min(self.low, -1)))

    def size(self) -> Tensor:
        """The step as used: α / Qp; gradients pass as if α were free."""
        alpha = self.alpha.detach().clamp(TINY, self.most) + (self.alpha - self.alpha.detach())
        return (alpha.detach() if self.frozen else alpha) / self.high

    def forward(self, x: Tensor) -> Tensor:
        quantized: Tensor = FakeQuantize.apply(x, self.size(), self.low, self.high, 1.0, False)
        return quantized

    def extra_repr(self) -> str:
        return f"{self.low}..{self.high}"
