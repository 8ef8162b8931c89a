"""Where learning starts: levels and steps from what the float network holds on a few images.

Activations get as many of their 2^b integers below zero as their range has: none behind a ReLU
(Qn = 0), z = round(−lo (2^b − 1) / (hi − lo)) elsewhere, so that zero is an integer and no level
is lost on a side where nothing is. The levels stay; the steps are learned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgecv.errors import StageError
from edgecv.methods.qat.attach import attach, of
from edgecv.methods.qat.insertion import choose
from edgecv.models.edits import Edit

BATCH = 64


def prepare(
    module: nn.Module,
    images: Tensor,
    step: str,
    method: str,
    weight_bits: int,
    activation_bits: int,
) -> Edit:
    """Give a float network its quantizers, in place; the edit that replays them.

    images: (N, C, H, W) float32, what the ranges are measured on
    Raises UnsupportedError (nothing to quantize), StageError (NaN or infinite activations).
    """
    edit = choose(module, images[:1], step, method, weight_bits, activation_bits)
    for q in edit["quantizers"].values():
        q.setdefault("low", 0)
        q.setdefault("high", 1)
    attach(module, edit)
    quantizers = of(module)
    held = _observe(module, images)
    for name, q in edit["quantizers"].items():
        quantizer: Any = quantizers[name]
        if "parameter" in q:
            weight = module.get_parameter(q["parameter"]).detach()
            rows = weight.reshape(q["channels"], -1)
            quantizer.start(rows.abs().mean(1), rows.amin(1), rows.amax(1))
            continue
        mean, low, high = held[name]
        if not bool(torch.isfinite(torch.stack([mean, low, high])).all()):
            raise StageError(f"{step}: {name}", "is NaN or infinite", "check the data's mean, std")
        q["low"], q["high"] = quantizer.low, quantizer.high = _levels(low, high, q["bits"])
        quantizer.start(mean, low, high)
    return edit


def _observe(module: nn.Module, images: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """E|x|, min and max of every activation by its quantizer's name, of the float network."""
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}

    def see(name: str, x: Tensor) -> None:
        low, high = x.aminmax()
        old = sums.get(name, [torch.zeros(()), low, high])
        sums[name] = [old[0] + x.abs().sum(), torch.minimum(old[1], low),
                      torch.maximum(old[2], high)]  # fmt: skip
        counts[name] = counts.get(name, 0) + x.numel()

    quantizers = of(module)
    quantizers.active, quantizers.watch = False, see
    with torch.no_grad():
        for part in images.split(BATCH):
            module.eval()(part)
    quantizers.active, quantizers.watch = True, None
    return {name: (s[0] / counts[name], s[1], s[2]) for name, s in sums.items()}


def _levels(low: Tensor, high: Tensor, bits: int) -> tuple[int, int]:
    """(Qn, Qp) of an activation that held low..high."""
    most = (1 << bits) - 1
    below, above = max(0.0, -float(low)), max(0.0, float(high))
    zero = min(round(most * below / max(below + above, 1e-12)), most - 1)
    return -zero, most - zero
