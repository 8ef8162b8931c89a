"""Greedily  T ← T ∪ argmin_c ‖Σ_{t ∈ T ∪ c} x̂_t‖²: remove what the next layer feels least.

x̂_c is channel c's contribution to one output (place, filter) of the layers that read it, sampled;
I(c) is by how much the error grows when c goes, in units of ‖Σ x̂‖². What stays is rescaled by
least squares, a = argmin ‖y - Σ_{c kept} a_c x̂_c‖² (`rescale`), and the factors go into the next
layer's weights. Luo et al., "ThiNet", ICCV 2017. Pitfall: the paper stays inside a block; here all
readers of a residual stream are summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecv.methods.pruning.groups import Group, Member
from edgecv.methods.pruning.probe import Probe, reading

ADDITIVE = True
PLACES = 256  # sampled outputs of each reader, for each batch of images
RIDGE = 1e-3  # of the mean of the Gram matrix's diagonal: keeps the factors near 1


def score(groups: Sequence[Group], probe: Probe) -> list[Tensor]:
    found = []
    for group, by_reader in zip(groups, grams(groups, probe), strict=True):
        gram = torch.zeros(group.width, group.width)
        for own in by_reader.values():
            gram += own / own.sum().clamp_min(1e-12)
        found.append(_growth(gram))
    return found


def rescale(groups: Sequence[Group], kept: Sequence[Tensor], probe: Probe) -> None:
    """Multiply the readers' columns of the channels that stay, in place, before the cut."""
    for group, keep, by_reader in zip(groups, kept, grams(groups, probe), strict=True):
        if len(keep) == group.width:
            continue
        for member in group.consumers():
            factors = torch.ones(group.width)
            factors[keep] = _factors(by_reader[member.name], keep)
            weight = member.layer.weight
            assert isinstance(weight, Tensor)
            shape = (-1, *[1] * (weight.ndim - 2))
            weight.data[:, member.at] *= factors[member.of].reshape(shape)


def grams(groups: Sequence[Group], probe: Probe) -> list[dict[str, Tensor]]:
    """For every group, by reader: the sum over samples of x̂ᵀx̂; float (width, width)."""
    found: list[dict[str, Tensor]] = [{} for _ in groups]
    chance = torch.Generator().manual_seed(probe.context.seed)

    def seen(index: int, member: Member, x: Tensor) -> None:
        group = groups[index]
        parts = _contributions(member, x, chance)
        by_channel = torch.zeros(len(parts), group.width).index_add_(
            1, member.of, parts[:, member.at]
        )
        own = found[index].setdefault(member.name, torch.zeros(group.width, group.width))
        own += by_channel.T @ by_channel

    with torch.no_grad(), reading(groups, seen):
        for x, _ in probe.batches:
            probe.module(x)
    return found


def _contributions(member: Member, x: Tensor, chance: torch.Generator) -> Tensor:
    """Of random outputs of a layer, what each input channel gives to them: (PLACES, in)."""
    layer = member.layer
    if isinstance(layer, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        images = torch.randint(len(rows), (PLACES,), generator=chance)
        filters = torch.randint(layer.out_features, (PLACES,), generator=chance)
        return rows[images] * layer.weight[filters]
    assert isinstance(layer, nn.Conv2d)
    padded = nn.functional.pad(x, [p for p in reversed(_padding(layer)) for _ in (0, 1)])
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    height = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    draw = [torch.randint(n, (PLACES,), generator=chance)
            for n in (len(x), height, width, layer.out_channels)]  # fmt: skip
    image, down, right, filters = draw
    patch_rows = (down * sh)[:, None, None] + dh * torch.arange(kh)[None, :, None]
    patch_columns = (right * sw)[:, None, None] + dw * torch.arange(kw)[None, None, :]
    patches = padded[image[:, None, None], :, patch_rows, patch_columns]  # (places, kh, kw, in)
    return (patches * layer.weight[filters].permute(0, 2, 3, 1)).sum((1, 2))


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Height, width; "same" pads half of what the kernel spans."""
    if isinstance(layer.padding, str):
        if layer.padding == "valid":
            return 0, 0
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return spans[0] // 2, spans[1] // 2
    return int(layer.padding[0]), int(layer.padding[1])


def _growth(gram: Tensor) -> Tensor:
    """By how much the error grew when each channel went, in the greedy order."""
    count = len(gram)
    growth, together = torch.zeros(count), torch.zeros(count)
    error, worst = 0.0, 0.0
    left = torch.ones(count, dtype=torch.bool)
    for place in range(count):
        step = torch.where(left, gram.diagonal() + 2 * together, torch.inf)
        chosen = int(step.argmin())
        error += float(step[chosen])
        growth[chosen] = max(error - worst, 0.0) + 1e-9 * (place + 1)  # ties keep the order
        worst = max(worst, error)
        together += gram[chosen]
        left[chosen] = False
    return growth


def _factors(gram: Tensor, keep: Tensor) -> Tensor:
    """a = argmin ‖y - Σ a_c x̂_c‖² + ridge ‖a - 1‖², over the channels that stay."""
    own = gram[keep][:, keep]
    ridge = RIDGE * own.diagonal().mean().clamp_min(1e-12) * torch.eye(len(keep))
    wanted = gram[keep].sum(1) + ridge.sum(1)
    factors = torch.linalg.solve((own + ridge).double(), wanted.double()).float()
    return factors if bool(torch.isfinite(factors).all()) else torch.ones(len(keep))
