"""B ← g · round(B / g),  g = s_x s_w |k|: biases that an int8 engine holds exactly.

Engines add a layer's bias as a 32-bit integer on the grid of its products: s_x of what it reads,
s_w of its weight, and a folded batch norm's k = γ / σ, which makes the bias B = k b + β − μ k.
Rounding it moves an output by a hundredth of a level, but alike wherever the input is constant: a
background whose output lies that near to half a level changes its level in a whole plane of the
next layer's input. So the network is left with the biases that will run.

s_x is the step that the engine has: 255 of them span the learned range, however few bits were
trained.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.methods.qat.attach import of
from edgecv.models.edits import Edit
from edgecv.models.layer_kinds import altered

LEVELS = 255  # between the ends of an activation's range, in every engine


def settle(module: nn.Module, edit: Edit) -> None:
    """Move every bias to its grid, in place: that of the batch norm behind, else the layer's own.

    Left alone are a layer that runs twice (its grids differ), one whose input has no quantizer, and
    a batch norm without a bias or without statistics.
    """
    layers = [call for call in edit["calls"] if "reads" in call]
    uses = Counter(call[key] for call in layers for key in ("weight", "norm") if key in call)
    quantizers = of(module)
    for call in layers:
        if any(uses[call[key]] > 1 for key in ("weight", "norm") if key in call):
            continue
        reads: Any = quantizers[call["reads"]]
        step = reads.size() * (reads.high - reads.low) / LEVELS
        parameter = edit["quantizers"][call["weight"]]["parameter"]
        layer = module.get_submodule(parameter.rpartition(".")[0])
        weight: Any = quantizers[call["weight"]]
        grid = step.detach().double() * weight.size().detach().double()
        norm = module.get_submodule(call["norm"]) if "norm" in call else None
        with torch.no_grad():
            _move(layer, norm, grid)


def _move(layer: nn.Module, norm: nn.Module | None, grid: Tensor) -> None:
    """grid: of the layer's products, float64 (channels,) or (1,)"""
    own = layer.bias if isinstance(layer, nn.Conv2d | nn.Linear) and not altered(layer) else None
    if norm is None:
        if own is not None:
            own.copy_(_nearest(own.double(), grid))
        return
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.bias is None:
        return
    if altered(norm):
        return
    assert norm.running_var is not None
    k = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    rest = k * own.double() if own is not None else torch.zeros_like(k)
    rest -= norm.running_mean.double() * k
    folded = rest + norm.bias.double()
    norm.bias.copy_(_nearest(folded, grid * k.abs()) - rest)


def _nearest(bias: Tensor, grid: Tensor) -> Tensor:
    return torch.where(grid > 0, (bias / grid).round() * grid, bias)
