"""x̂ = s · clip(round(x / s), Qn, Qp), the step s learned with the weights.

Esser et al., "Learned Step Size Quantization" (ICLR 2020). Rounding passes gradients straight
through; the step's own gradient is

    ∂x̂/∂s = round(x / s) − x / s   where Qn < x / s < Qp,   Qn below,   Qp above

scaled by g = 1 / sqrt(N Qp), N the elements of the weight or of one image's activation,
and s starts at 2 E|x| / sqrt(Qp). Pitfall: at 8 bits that start spans 32 E|x| and wastes two bits,
so it never exceeds what the extremes need.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

TINY = 1e-8  # a step is above it


def levels(bits: int) -> tuple[int, int]:
    """The integers of a weight. As many on both sides, because a batch norm with negative γ flips
    their signs when it is folded; at 2 bits the fourth level is worth more: −2..1 as published.
    """
    high = (1 << (bits - 1)) - 1
    return (-2 if bits == 2 else -high), high


class FakeQuantize(torch.autograd.Function):
    """x̂ of x: any shape, float32; step: broadcasts against x, above 0."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: int, high: int, gain: float, rounding: bool
    ) -> Tensor:
        """gain: what the step's gradient is multiplied with. rounding: whether the rounding error
        of values inside the range moves the step (LSQ) or only clipped values do (PACT).
        """
        clipped = (x / step).clamp_(low, high)
        ctx.save_for_backward(clipped, step)
        ctx.how = (low, high, gain, rounding)
        return clipped.round().mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # In whole passes over the tensor, because those are what training time is made of: masks
        # and torch.where take three times as long.
        (grad,), (clipped, step) = grads, ctx.saved_tensors
        low, high, gain, rounding = ctx.how
        passed = torch.ops.aten.hardtanh_backward(grad, clipped, low, high)
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None, None, None
        pull = (grad - passed).mul_(clipped)  # Qn below, Qp above, 0 inside
        if rounding:
            pull.addcmul_(grad, clipped.round().sub_(clipped))  # 0 outside
        return passed, pull.sum_to_size(step.shape) * gain, None, None, None, None


class Lsq(nn.Module):
    """A fake-quantizer with a learned step, or one for each output channel of a weight.

    low, high: integers (Qn, Qp). channels: how many steps; the first axis of what comes has that
    many, or there is one step. most: the range never exceeds it (6 behind a ReLU6).
    weight: N counts all its elements; of activations, those of one image
    """

    def __init__(
        self,
        low: int,
        high: int,
        channels: int = 1,
        most: float | None = None,
        weight: bool = False,
    ) -> None:
        super().__init__()
        self.low, self.high, self.most, self.weight = low, high, most, weight
        self.step = nn.Parameter(torch.ones(channels))
        self.frozen = False

    def start(self, mean: Tensor, low: Tensor, high: Tensor) -> None:
        """Set the step from E|x| and the extremes of x, (channels,) or scalars."""
        wide = torch.maximum(high / max(self.high, 1), low / min(self.low, -1))
        step = torch.minimum(2 * mean / math.sqrt(max(self.high, 1)), wide)
        alive = step > TINY  # a channel of zeros takes the middle of the others
        middle = step[alive].median() if bool(alive.any()) else torch.tensor(1.0 / self.high)
        self.step.data.copy_(torch.where(alive, step, middle))

    def size(self) -> Tensor:
        """The step as used, above 0 and within `most`; gradients pass as if it were free."""
        most = math.inf if self.most is None else self.most / self.high
        step = self.step.detach().clamp(TINY, most) + (self.step - self.step.detach())
        return step.detach() if self.frozen else step

    def forward(self, x: Tensor) -> Tensor:
        step = self.size()
        count = x.numel() / (1 if self.weight else len(x))
        if len(step) > 1:
            step = step.view(-1, *[1] * (x.ndim - 1))
        gain = 1 / math.sqrt(count * max(self.high, 1))
        quantized: Tensor = FakeQuantize.apply(x, step, self.low, self.high, gain, True)
        return quantized

    def extra_repr(self) -> str:
        return f"{self.low}..{self.high}, steps={len(self.step)}"
