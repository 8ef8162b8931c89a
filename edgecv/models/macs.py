"""MACs = Σ over convolutions and products of the multiply-accumulates of one image.

A convolution costs out_pixels · c_out · (c_in / groups) · kh · kw, a dense layer c_in · c_out for
each row, attention over T tokens 2 T² d for each head of d. What is counted is every call of
PyTorch's operators while one image runs (`FlopCounterMode`, halved): subclasses of nn.Conv2d and
calls of F.conv2d count like any other, and a layer that is used twice counts twice. Additions,
activations, pooling and batch norm (folded on devices) do not count.

Pitfall: the counter does not know the CPU's fused attention and fused LSTM, and takes them for
nothing (torch 2.13): both run in their parts here, whose products it knows.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def macs(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one (channels, *size) image, wherever the weights are ("meta" too).

    The module is left in evaluation mode.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = torch.zeros(1, channels, *size, device=device)
    aten = torch.ops.aten
    fused = not any(isinstance(part, torch.nn.LSTM) for part in module.modules())
    more = {aten.mv: _matrix, aten.addmv: _added, aten.dot: _matrix, aten._trilinear: _bilinear}
    with (
        torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings(),
        FlopCounterMode(display=False, custom_mapping=more) as counter,
    ):  # fmt: skip
        warnings.simplefilter("ignore")  # of the switch, which names another maker's GPUs
        with nullcontext() if fused else torch.backends.mkldnn.flags(enabled=False):
            module.eval()(x)
    return counter.get_total_flops() // 2


def _matrix(matrix: Any, *_: Any, **__: Any) -> int:
    """Operations of a matrix times a vector, of its shape."""
    return 2 * prod(matrix)


def _added(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
    return 2 * prod(matrix)


def _bilinear(x: Any, weight: Any, y: Any, *_: Any, **__: Any) -> int:
    """Of x W y, for every x: W is (out, in, in')."""
    del y
    return 2 * x[0] * prod(weight)


def parameters(module: torch.nn.Module) -> int:
    """Trained numbers: weights, biases, and scale and shift of normalisations."""
    return sum(p.numel() for p in module.parameters())
