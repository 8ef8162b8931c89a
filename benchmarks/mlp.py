"""Multilayer perceptrons of MNIST: 784 - width - width - 10, rectified linear units.

    h1 = relu(W1 x),  h2 = relu(W2 h1),  z = W3 h2

`dropout` is the share of h1 and h2 that is left out in training (Hinton et al., 2012). A recipe in
this folder names one by {module: "mlp:mlp", width: 800}.
"""

from __future__ import annotations

from torch import nn


def mlp(width: int = 800, dropout: float = 0.0) -> nn.Module:
    """float (N, 1, 28, 28) -> logits (N, 10)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, 10),
    )
