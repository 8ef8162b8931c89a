"""From a network and a wish to the layers that become products, and at which ranks.

    wished ranks ─ a clock on each target ─ what wins no time stays whole ─ {layer: form, ranks}

Where no target runs on this machine, MACs stand for time, and the facts say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.context import Context
from edgecv.errors import BudgetError, StageError
from edgecv.measuring.jobs import Times
from edgecv.methods.lowrank import choice, ranks, timing
from edgecv.methods.lowrank.choice import Option
from edgecv.methods.lowrank.form import Form, Ranks, Shape, composed, error
from edgecv.methods.lowrank.history import form_of
from edgecv.methods.lowrank.layers import Layer, covariance
from edgecv.target import Target

if TYPE_CHECKING:
    import torch
    from torch import nn

OPTIONS = 5  # ranks that are timed of one layer, spread over its ladder
HALVINGS = 7  # of the time, in search of ranks that are accurate


@dataclass(frozen=True)
class Wish:
    """How layers are to be factorised: the fields of the stage.

    sample: images as the network takes them, for E[x xᵀ]; None: weights alone
    """

    method: str
    rank_by: str
    rank: int | None
    energy: float
    macs: float
    latency: float
    groups: int
    penalty: float
    align: int
    seed: int
    where: str
    sample: torch.Tensor | None = None


@dataclass
class Candidate:
    """A layer and the form that it could take. weight: float64 (out, in, kh, kw)."""

    name: str
    shape: Shape
    form: Form
    weight: np.ndarray
    covariance: np.ndarray | None
    options: list[Option] = field(default_factory=lambda: [Option()])

    def factors(self, chosen: Ranks) -> list[np.ndarray]:
        return self.form.factors(self.weight, chosen, self.covariance)

    def error(self, chosen: Ranks) -> float:
        """Share of the outputs' energy that is lost."""
        groups = [part.groups for part in self.form.parts(self.shape, chosen)]
        return error(self.weight, composed(self.factors(chosen), groups), self.covariance)


Chosen = Sequence[tuple[Candidate, Ranks]]


@dataclass
class Decision:
    """What becomes of the layers.

    chosen: those that become products, and their ranks; whole: why the others do not
    facts:  of each that is chosen; not_timed: targets that could not tell, and why
    """

    chosen: list[tuple[Candidate, Ranks]] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    not_timed: dict[str, str] = field(default_factory=dict)


def candidate(module: nn.Module, layer: Layer, wish: Wish) -> Candidate | str:
    """The layer with its form and weights, or why it has none."""
    shape = layer.shape
    if layer.refusal:
        return layer.refusal
    flat = shape.kind == "dense" or shape.pointwise
    if not flat and wish.method == "svd":
        return "is no dense and no 1x1 layer (use spatial, tucker2, cp or grouped)"
    if not flat and wish.method == "grouped" and shape.channels[0] % wish.groups:
        return f"reads {shape.channels[0]} channels, which are no {wish.groups} groups"
    form = form_of("svd" if flat else wish.method, wish.groups, wish.penalty, wish.seed)
    if not form.ladder(shape, wish.align):
        return f"saves no MACs at any rank that is a multiple of {wish.align}"
    part: Any = module.get_submodule(layer.name)
    weight = part.weight.detach().double().numpy().reshape(shape.dims).copy()
    known = None
    if wish.sample is not None:
        known = covariance(module, layer.name, wish.sample, wish.seed)
    return Candidate(layer.name, shape, form, weight, known)


def propose(found: Candidate, wish: Wish) -> str:
    """Add the ranks that are wished for to the layer's options; why not, where there are none."""
    form, shape = found.form, found.shape
    if wish.rank is not None:
        wanted = [ranks.given(form, shape, wish.rank, wish.align)]
    elif wish.rank_by == "energy":
        wanted = [ranks.by_energy(form, shape, found.weight, found.covariance, wish.energy,
                                  wish.align)]  # fmt: skip
    elif wish.rank_by == "evbmf":
        wanted = [ranks.by_noise(form, shape, found.weight, wish.align)]
    elif wish.rank_by == "macs":
        fitting = ranks.by_macs(form, shape, wish.macs, wish.align)
        if fitting is None:
            least = form.ladder(shape, wish.align)[0]
            return f"takes {form.macs(shape, least) / shape.macs:.2f} of its MACs at the least"
        wanted = [fitting]
    else:
        wanted = _spread(form.ladder(shape, wish.align))
    saving = [r for r in wanted if form.saves(shape, r)]
    if not saving:
        told = ", ".join(map(str, wanted[-1]))
        return f"saves no MACs at rank {told}"
    found.options += [Option(r, found.error(r)) for r in saving]
    return ""


def decide(
    module: nn.Module, layers: Sequence[Layer], names: set[str], wish: Wish,
    targets: Sequence[Target] = (), fuse_back: bool = True, integer: bool = False,
    budget_s: float = 60.0, context: Context | None = None,
    accurate: Callable[[Chosen], bool] | None = None,
) -> Decision:  # fmt: skip
    """context: what measures, and is told of progress; None where no time is asked for.
    accurate: whether a network with those factors is, for rank_by: accuracy.

    Raises StageError: a layer's decomposition diverges, or no clock for rank_by: latency or
    accuracy; BudgetError: nothing is as fast as was asked.
    """
    decision, open_ = Decision(), []
    progress = context.progress if context else None
    by_time = wish.rank is None and wish.rank_by in ("latency", "accuracy")
    usable, decision.not_timed = timing.measurable(targets) if fuse_back or by_time else ([], {})
    if by_time and not usable:
        reasons = "; ".join(f"{k}: {v}" for k, v in decision.not_timed.items())
        what = f"no target can be timed here{': ' if reasons else ''}{reasons}"
        raise StageError(wish.where, what, "use rank_by: macs, energy or evbmf")
    for i, layer in enumerate(layers):
        if layer.name not in names:
            decision.whole[layer.name] = "was not asked for"
            continue
        if progress:
            progress(i, len(layers), f"ranks of {layer.name}")
        found = candidate(module, layer, wish)
        try:
            reason = found if isinstance(found, str) else propose(found, wish)
        except StageError as e:
            raise StageError(f"{wish.where}: layer {layer.name!r}", e.what, e.hint) from None
        if reason:
            decision.whole[layer.name] = reason
        else:
            assert isinstance(found, Candidate)
            open_.append(found)
    times = _times(open_, layers, by_time, usable, (integer, budget_s, wish.seed), context)
    if not by_time:
        picked = _winners(open_, times, decision)
    elif accurate is not None:
        picked = _by_accuracy(open_, layers, times, accurate, progress)
    else:
        picked = _by_time(open_, layers, times, wish)
    for found in open_:
        option = picked.get(found.name, 0)
        own = {t: row[found.name] for t, row in times.items() if found.name in row}
        _note(decision, found, option, own)
    return decision


def _spread(ladder: list[Ranks]) -> list[Ranks]:
    places = np.unique(np.linspace(0, len(ladder) - 1, min(OPTIONS, len(ladder))).round())
    return [ladder[int(i)] for i in places]


def _times(
    open_: list[Candidate], layers: Sequence[Layer], by_time: bool, targets: Sequence[Target],
    how: tuple[bool, float, int], context: Context | None,
) -> dict[str, dict[str, Times]]:  # fmt: skip
    """target -> layer -> times. By time, the layers without options count in the whole."""
    rows: dict[str, list[tuple[Shape, ...]]] = {
        c.name: [(c.shape,), *(c.form.parts(c.shape, o.ranks) for o in c.options if o.ranks)]
        for c in open_
    }
    if by_time:
        rows |= {la.name: [(la.shape,)] for la in layers if la.name not in rows}
    integer, budget_s, seed = how
    share = budget_s / max(1, len(targets))
    if not rows or not targets:
        return {}
    assert context is not None
    return {t.name: timing.times(rows, t, integer, share, seed, context) for t in targets}


def _winners(
    open_: list[Candidate], times: Mapping[str, Mapping[str, Times]], decision: Decision
) -> dict[str, int]:
    """The layers whose factors are faster: the mean over targets, or MACs where none can tell."""
    picked = {}
    for found in open_:
        own = {t: row[found.name] for t, row in times.items()}
        ratio = choice.at_most(own, 1)
        if ratio is not None and ratio >= 1.0:
            wished = ", ".join(map(str, found.options[1].ranks or ()))
            told = ", ".join(f"{t} {v.ratios[1]:.2f}" for t, v in own.items() if v.ratios)
            decision.whole[found.name] = f"wins no time at rank {wished}: {told} of the whole's"
        else:
            picked[found.name] = 1
    return picked


def _by_time(
    open_: list[Candidate], layers: Sequence[Layer], times: Mapping[str, Mapping[str, Times]],
    wish: Wish,
) -> dict[str, int]:  # fmt: skip
    """Raises BudgetError with the nearest share that can be reached."""
    options, others = _timed(open_, layers, times)
    picked = choice.choose(options, times, others, wish.latency) if options else None
    if picked is None:
        least = choice.fastest(options, times, others) if options else 1.0
        raise BudgetError(
            wish.where,
            f"latency {wish.latency} of the layers' time is below what the lowest ranks reach",
            f"the nearest is {least:.2f}",
        )
    return picked


def _by_accuracy(
    open_: list[Candidate], layers: Sequence[Layer], times: Mapping[str, Mapping[str, Times]],
    accurate: Callable[[Chosen], bool], progress: Callable[..., None] | None,
) -> dict[str, int]:  # fmt: skip
    """The least time, by bisection, whose ranks leave the network accurate; {} where none does."""
    options, others = _timed(open_, layers, times)
    if not options:
        return {}
    low, high, best = choice.fastest(options, times, others), 1.0, dict[str, int]()
    for i in range(HALVINGS):
        share = low if i == 0 else (low + high) / 2
        if progress:
            progress(i, HALVINGS, f"ranks for {share:.2f} of the layers' time")
        picked = choice.choose(options, times, others, share + 1e-9)
        if picked is None or not accurate(_chosen(open_, picked)):
            low = share
            continue
        best, high = picked, share
        if i == 0:
            break
    return best


def _chosen(open_: list[Candidate], picked: Mapping[str, int]) -> Chosen:
    """The layers that become products under a choice of options."""
    ranks = [(c, c.options[picked.get(c.name, 0)].ranks) for c in open_]
    return [(c, r) for c, r in ranks if r is not None]


def _timed(
    open_: list[Candidate], layers: Sequence[Layer], times: Mapping[str, Mapping[str, Times]]
) -> tuple[dict[str, list[Option]], dict[str, float]]:
    """Options of the layers that could be timed; target -> milliseconds of all others."""
    known = [c for c in open_ if all(row[c.name].ratios for row in times.values())]
    options = {c.name: c.options for c in known}
    rest = [la.name for la in layers if la.name not in options]
    return options, {t: sum(row[n].ms for n in rest) for t, row in times.items()}


def _note(decision: Decision, found: Candidate, option: int, times: Mapping[str, Times]) -> None:
    chosen = found.options[option].ranks
    if chosen is None:
        unknown = [f"{t}: {v.refusal}" for t, v in times.items() if not v.ratios]
        told = f"could not be timed on {'; '.join(unknown)}" if unknown else "is worth its time"
        decision.whole.setdefault(found.name, told)
        return
    decision.chosen.append((found, chosen))
    decision.facts[found.name] = {
        "form": found.form.name,
        "ranks": list(chosen),
        "error": round(found.options[option].error, 6),
        "macs": round(found.form.macs(found.shape, chosen) / found.shape.macs, 4),
        "time": {t: round(v.ratios[option], 3) for t, v in times.items() if v.ratios},
    }
