"""min_θ Σ ‖B_θ(x̂) − W * x‖²: a block is fitted to what the convolution it replaces gave.

x is what the convolution read in the network that came in, x̂ what the block reads in the network
with all blocks before it in place: later blocks make up for the errors of earlier ones (He et al.,
"Channel Pruning", ICCV 2017, fit layers in the same manner). Three steps:

1. Start from the kernel W. Depthwise filters are the first right singular vectors of each input
   channel's kernels W[:, i], grouped ones the diagonal blocks of W, a bottleneck's factors its two
   unfoldings' singular vectors (HOSVD). What follows is random.
2. The last convolution by ridge regression on real images, exact for what comes before it.
3. All of the block by Adam, then the last convolution again; the better of both is kept.

Pitfall: the fit is only as good as the images; too few of them and the regression fits their noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecv.methods.restructuring.blocks import Spec, make
from edgecv.models.zoo.blocks import ChannelShuffle

RATE = 3e-3  # Adam's, falling to zero as a cosine
BATCH = 16  # images in a step, and in a pass
RIDGE = 1e-5  # of the mean of the features' squares

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Fit:
    """A block, and how far its outputs are from the convolution's, as a share of their variance.

    start: after the regression alone. error: at the end.
    """

    block: nn.Sequential
    start: float
    error: float


def fit(spec: Spec, kernel: Tensor, pairs: Pairs, steps: int, seed: int) -> Fit:
    """A new block fitted to pairs of (what it reads, what it is to give)."""
    torch.manual_seed(seed)
    block = make(spec)
    with torch.no_grad():
        start_from(block, spec, kernel.detach())
    regress(block, pairs)
    first = error(block, pairs)
    kept = {k: v.clone() for k, v in block.state_dict().items()}
    if steps:
        _descend(block, pairs, steps)
        regress(block, pairs)
    last = error(block, pairs)
    if not last < first:  # also where it is not a number
        block.load_state_dict(kept)
    return Fit(block, first, min(first, last) if math.isfinite(last) else first)


def captured(teacher: nn.Module, student: nn.Module, name: str, x: Tensor) -> Pairs:
    """What layer `name` reads in the student beside what it gives in the teacher, by batches."""
    read: list[Tensor] = []
    given: list[Tensor] = []
    hooks = [
        student.get_submodule(name).register_forward_pre_hook(
            lambda _m, inputs: read.append(inputs[0].clone())
        ),
        teacher.get_submodule(name).register_forward_hook(
            lambda _m, _i, output: given.append(output.clone())
        ),
    ]
    try:
        with torch.no_grad():
            for part in x.split(BATCH):
                student(part)
                teacher(part)
    finally:
        for hook in hooks:
            hook.remove()
    return list(zip(read, given, strict=True))


def error(block: nn.Module, pairs: Pairs) -> float:
    """Σ ‖B(x) − y‖² / Σ ‖y − ȳ‖², ȳ the mean of each channel."""
    count = sum(y.numel() / y.shape[1] for _, y in pairs)
    mean = torch.stack([y.double().sum((0, 2, 3)) for _, y in pairs]).sum(0) / count
    spread = sum(float((y.double() - mean[:, None, None]).square().sum()) for _, y in pairs)
    with torch.no_grad():
        missed = sum(float((block(x) - y).double().square().sum()) for x, y in pairs)
    return missed / max(spread, 1e-12)


def regress(block: nn.Sequential, pairs: Pairs) -> None:
    """Set the last convolution, which is 1x1, to the least squares solution, group by group."""
    before, last, after = _split(block)
    g = last.groups
    inside = last.in_channels // g
    gram = torch.zeros(g, inside + 1, inside + 1, dtype=torch.float64)
    cross = torch.zeros(g, inside + 1, last.out_channels // g, dtype=torch.float64)
    with torch.no_grad():
        for x, y in pairs:
            wanted = y.index_select(1, torch.argsort(after.order)) if after is not None else y
            columns = _by_group(before(x), g)
            columns = torch.cat([columns, torch.ones_like(columns[:, :, :1])], 2)  # the bias
            gram += columns.mT @ columns
            cross += columns.mT @ _by_group(wanted, g)
        ridge = RIDGE * gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1).clamp_min(1e-12)
        eye = torch.eye(inside + 1, dtype=torch.float64)
        eye[-1, -1] = 0  # the bias is not held back
        found = torch.linalg.solve(gram + ridge[:, None, None] * eye, cross)
        last.weight.copy_(found[:, :-1].mT.reshape(last.weight.shape))
        bias = last.bias
        assert bias is not None  # every block's last convolution has one
        bias.copy_(found[:, -1].reshape(-1))


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) -> (groups, N·H·W, C / groups), float64."""
    n, c, h, w = x.shape
    rows = x.permute(1, 0, 2, 3).reshape(groups, c // groups, n * h * w)
    return rows.mT.double()


def _split(block: nn.Sequential) -> tuple[nn.Sequential, nn.Conv2d, ChannelShuffle | None]:
    """What comes before the last convolution, that one, and the shuffle after it or None."""
    parts: list[Any] = list(block)
    after = parts.pop() if isinstance(parts[-1], ChannelShuffle) else None
    return nn.Sequential(*parts[:-1]), parts[-1], after


def _descend(block: nn.Sequential, pairs: Pairs, steps: int) -> None:
    """Adam on the relative error of one batch after another."""
    optimizer = torch.optim.Adam(block.parameters(), lr=RATE)
    order: list[int] = []
    for step in range(steps):
        order = order or torch.randperm(len(pairs)).tolist()
        x, y = pairs[order.pop()]
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = F.mse_loss(block(x), y) / y.var().clamp_min(1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def start_from(block: nn.Sequential, spec: Spec, kernel: Tensor) -> None:
    """Set what comes before the last convolution to what the kernel (O, I, kh, kw) says."""
    first: Any = block[0]
    if spec.into in ("separable", "igcv2"):
        filters = _filters(kernel, 1)
        first.weight.copy_(filters[:, :1])
    elif spec.into in ("grouped", "igcv1"):
        rows, columns = spec.c_out // spec.groups, spec.c_in // spec.groups
        for g in range(spec.groups):
            own = slice(g * rows, (g + 1) * rows)
            first.weight[own] = kernel[own, g * columns : (g + 1) * columns]
    elif spec.into == "igcv3":
        _start_igcv3(block, spec, kernel)
    else:
        middle: Any = block[1]
        basis = torch.linalg.svd(kernel.transpose(0, 1).flatten(1), full_matrices=False)[0]
        factor = _columns(basis, spec.inner)  # (c_in, inner)
        first.weight.copy_(factor.T[:, :, None, None])
        core = torch.einsum("oihw,ir->orhw", kernel, factor)
        basis = torch.linalg.svd(core.flatten(1), full_matrices=False)[0]
        out = _columns(basis, spec.inner)
        middle.weight.copy_(torch.einsum("orhw,os->srhw", core, out))


def _start_igcv3(block: nn.Sequential, spec: Spec, kernel: Tensor) -> None:
    """The wide 1x1 copies its inputs; the n-th singular vector filters the n-th copy of each."""
    wide: Any = block[0]
    shuffle: Any = block[1]
    depthwise: Any = block[2]
    inputs, half = spec.c_in // wide.groups, spec.inner // wide.groups
    wide.weight.zero_()
    for j in range(spec.inner):
        wide.weight[j, j % half % inputs] = 1
    copies = -(-half // inputs)
    filters = _filters(kernel, copies)
    for m, j in enumerate(shuffle.order.tolist()):
        group, place = divmod(j, half)
        copy, channel = divmod(place, inputs)
        depthwise.weight[m, 0] = filters[group * inputs + channel, copy]


def _filters(kernel: Tensor, count: int) -> Tensor:
    """(O, I, kh, kw) -> (I, count, kh, kw): each input's first right singular vectors.

    Those beyond the kernel's rank are random.
    """
    o, i, kh, kw = kernel.shape
    rows = torch.linalg.svd(kernel.permute(1, 0, 2, 3).reshape(i, o, kh * kw), full_matrices=False)
    filters = rows[2][:, :count]
    more = torch.randn(i, count - filters.shape[1], kh * kw) / math.sqrt(kh * kw)
    return torch.cat([filters, more], 1).reshape(i, count, kh, kw)


def _columns(basis: Tensor, count: int) -> Tensor:
    """The first `count` columns, random ones where there are fewer."""
    more = torch.randn(len(basis), max(0, count - basis.shape[1])) / math.sqrt(len(basis))
    return torch.cat([basis[:, :count], more], 1)
