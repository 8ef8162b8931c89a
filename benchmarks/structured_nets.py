"""A network of one hidden layer of a given structure, for `structured_fashion.py`.

x ─ flatten ─ M (784 x 784) ─ ReLU ─ dense (10)
"""

from __future__ import annotations

from torch import Tensor, nn

from edgecv.methods.lowrank import structured


class OneHidden(nn.Module):
    """float (N, 1, 28, 28) -> logits float (N, 10)."""

    def __init__(self, hidden: nn.Module, side: int) -> None:
        super().__init__()
        self.hidden, self.relu, self.head = hidden, nn.ReLU(), nn.Linear(side, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.hidden(x.flatten(1))))


def make(structure: str = "dense", rank: int = 0, side: int = 784) -> nn.Module:
    """structure: dense, lowrank, circulant or toeplitz; rank: of lowrank and of toeplitz."""
    if structure == "dense":
        return OneHidden(nn.Linear(side, side), side)
    if structure == "lowrank":  # 2 r n parameters, as toeplitz has
        narrow = nn.Sequential(nn.Linear(side, rank, bias=False), nn.Linear(rank, side))
        return OneHidden(narrow, side)
    return OneHidden(structured.make(structure, side, side, rank), side)
