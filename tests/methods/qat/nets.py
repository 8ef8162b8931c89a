"""Networks that put quantizers to the test: every way of saying what engines fuse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecv.models.zoo.efficientnet_lite import SamePad


class Spelled(nn.Module):
    """Functional and in-place calls, padding by shape, a concatenation, two kinds of pools."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.a = SamePad(3, 2), nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.b, self.c = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.a(self.pad(x))))
        y = F.relu_(self.norms[0](self.b(x)))
        z = self.norms[1](self.c(x))
        z += y
        x = torch.cat([y, z], 1)
        x = F.avg_pool2d(x, 2)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as training leaves them: some γ negative, statistics of their own."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            shape = part.weight.shape
            part.weight.data = torch.randn(shape, generator=generator) + 0.3
            part.bias.data = torch.randn(shape, generator=generator)
            part.running_mean = 0.3 * torch.randn(shape, generator=generator)
            part.running_var = 0.2 + torch.rand(shape, generator=generator)
    return module.eval()
