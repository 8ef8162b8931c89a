"""min_λ D(f(x), f(x; λ)) / D(f(x), f(x; 0)) + γ mean λ,  λ ≥ 0: I(c) = λ_c, a learned gate.

D is KL of classes; of other tasks' outputs their distance
(`edgecv.methods.distillation.losses.answers`).

Control gates of critical data routing paths (Wang et al., CVPR 2018): a non-negative gate on every
channel, trained by distillation from the network without gates, with an L1 term that closes those
the answers can do without. One set of gates for all images here (the paper finds one per image).
Pitfall: paths that pruning selects need not be what the network looks at (Khakzar et al., CVPR
2021); it is a criterion for removal, not an explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.methods.distillation import losses
from edgecv.methods.pruning.groups import Group, Member
from edgecv.methods.pruning.probe import Probe, reading, trained_form

ADDITIVE = True
STEPS = 60
RATE = 0.05
L1 = 0.5  # γ: all gates open cost half of what all gates closed do


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:
    frozen = [p for p in probe.module.parameters() if p.requires_grad]
    with torch.no_grad():
        wanted = [_answers(probe, batch) for batch in range(len(probe.batches))]
    gates = [torch.ones(g.width, requires_grad=True) for g in groups]

    def seen(index: int, member: Member, x: Tensor) -> Tensor:
        conv = isinstance(member.layer, nn.Conv2d)
        full = torch.ones(x.shape[1] if conv else x.shape[-1])
        full = full.index_put((member.at,), gates[index][member.of])
        return x * (full[:, None, None] if conv else full)

    optimizer = torch.optim.Adam(gates, lr=RATE)
    path = [torch.zeros(g.width) for g in groups]  # tells apart those that end at zero
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), reading(groups, seen):
            for gate in gates:
                gate.zero_()
            worst = max(1e-6, _harm(probe, wanted, 0).item())
            for gate in gates:
                gate.fill_(1.0)
        with torch.enable_grad(), reading(groups, seen):
            for step in range(STEPS):
                harm = _harm(probe, wanted, step % len(wanted)) / worst
                optimizer.zero_grad()
                (harm + L1 * torch.cat(gates).mean()).backward()
                optimizer.step()
                with torch.no_grad():
                    for gate, total in zip(gates, path, strict=True):
                        gate.clamp_(min=0.0)
                        total += gate / STEPS
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return [g.detach() + 1e-3 * p for g, p in zip(gates, path, strict=True)]


def _answers(probe: Probe, batch: int) -> Any:
    """Probabilities of classes; of another task all that the network returns."""
    x = probe.batches[batch][0]
    if probe.task is not None:
        return trained_form(probe.module, x)
    return torch.softmax(probe.module(x), 1)


def _harm(probe: Probe, wanted: Sequence[Any], batch: int) -> Tensor:
    """How far the answers with these gates are from those without."""
    x = probe.batches[batch][0]
    if probe.task is not None:
        return losses.answers(trained_form(probe.module, x), wanted[batch])
    soft = nn.functional.log_softmax(probe.module(x), 1)
    return nn.functional.kl_div(soft, wanted[batch], reduction="batchmean")
