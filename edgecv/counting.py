"""MACs = Σ over convolutions and products of the multiply-accumulates of one image.

A convolution costs out_pixels · c_out · (c_in / groups) · kh · kw, a dense layer c_in · c_out. What
is counted is every call of PyTorch's operators while one image runs (`FlopCounterMode`, halved):
subclasses of nn.Conv2d and calls of F.conv2d count like any other, and a layer that is used twice
counts twice. Additions, activations, pooling and batch norm (folded on devices) do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def macs(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one (channels, *size) image, wherever the weights are ("meta" too).

    The module is left in evaluation mode.
    """
    return sum(_counted(module, channels, size).get("Global", {}).values()) // 2


def by_layer(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> dict[str, int]:
    """`macs` of each part by its name; the module is left in evaluation mode."""
    found = _counted(module, channels, size)
    start = f"{type(module).__name__}."
    return {
        name.removeprefix(start): sum(counts.values()) // 2
        for name, counts in found.items()
        if name.startswith(start)
    }


def _counted(
    module: torch.nn.Module, channels: int, size: tuple[int, int]
) -> dict[str, dict[Any, int]]:
    """FLOPs by part and operator."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = torch.zeros(1, channels, *size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(x)
    return dict(counter.get_flop_counts())


def parameters(module: torch.nn.Module) -> int:
    """Trained numbers: weights, biases, and scale and shift of normalisations."""
    return sum(p.numel() for p in module.parameters())
