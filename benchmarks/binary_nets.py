"""Networks for MNIST with batch norm behind every layer, as one-bit layers want it.

A recipe in this folder names one by {module: "binary_nets:lenet5"}.
"""

from __future__ import annotations

from torch import nn


def lenet5() -> nn.Module:
    """20-50-500-10: float (N, 1, 28, 28) -> logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.BatchNorm1d(500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def mlp(width: int = 256) -> nn.Module:
    """784 - width - width - width - 10."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, width, width):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))
