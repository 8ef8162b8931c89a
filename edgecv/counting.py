"""MACs = Σ over convolutions and products of the multiply-accumulates of one image.

A convolution costs out_pixels · c_out · (c_in / groups) · kh · kw, a dense layer c_in · c_out. What
is counted is every call of PyTorch's operators while one image runs (`FlopCounterMode`, halved):
subclasses of nn.Conv2d and calls of F.conv2d count like any other, and a layer that is used twice
counts twice. Additions, activations, pooling and batch norm (folded on devices) do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def macs(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one (channels, *size) image, wherever the weights are ("meta" too).

    The module is left in evaluation mode.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = torch.zeros(1, channels, *size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(x)
    return counter.get_total_flops() // 2


def parameters(module: torch.nn.Module) -> int:
    """Trained numbers: weights, biases, and scale and shift of normalisations."""
    return sum(p.numel() for p in module.parameters())
