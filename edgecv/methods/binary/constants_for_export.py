"""One-bit layers as constants: what `export` traces.

    y = s_f · (where(x >= β_c, 1, −1) ⊛ q(W)_f) + t_f + S(x)

Every engine can run that; `edgecv.binary.lowering` makes kernels of it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.methods.binary.modules import OneBit, past
from edgecv.models.edits import put


class Frozen(nn.Module):
    """A OneBit layer in eval mode, its outputs bit for bit."""

    least: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: OneBit) -> None:
        super().__init__()
        with torch.no_grad():
            w, alpha = layer.quantized()
            scale, bias = layer.folded(alpha)
        self.one_bit = not layer.real_inputs and layer.weights != "real"
        self.real_inputs, self.conv, self.how = layer.real_inputs, layer.conv, dict(layer.how)
        self.around = layer.around
        channels = w.shape[1] * layer.how.get("groups", 1)
        zeros = torch.zeros(channels) if layer.shift is None else layer.shift.detach()
        shape = (-1, 1, 1) if layer.conv else (-1,)
        for name, value in (("least", zeros), ("scale", scale), ("bias", bias)):
            self.register_buffer(name, value.detach().clone().view(shape))
        self.register_buffer("weight", w.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        read = x if self.real_inputs else torch.where(x >= self.least, 1.0, -1.0)
        dots = F.conv2d(read, self.weight, **self.how) if self.conv else F.linear(read, self.weight)
        y = dots * self.scale + self.bias
        return y + past(x, self.how["stride"], len(self.weight)) if self.around else y


def frozen(module: nn.Module) -> nn.Module:
    """A copy with Frozen for OneBit layers; the network itself where it has none."""
    if not any(isinstance(part, OneBit) for part in module.modules()):
        return module
    made = copy.deepcopy(module)
    for part in [m for m in made.modules() if isinstance(m, OneBit)]:
        put(made, part, Frozen(part))
    return made.train(module.training)


def one_bit(module: nn.Module) -> int:
    """How many layers multiply one-bit values by one-bit weights: those that can be counted."""
    return sum(isinstance(part, Frozen) and part.one_bit for part in module.modules())
