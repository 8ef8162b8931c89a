"""w ← w ⊙ m after every step: single weights are set to zero and stay there while others train.

    s(t) = s (1 - (1 - t)³)          the cubic schedule from nothing to s (Zhu & Gupta, 2017)
    magnitude  m = top_k |w|, of a layer or of the network (Han et al., NIPS 2015)
    movement   m = top_k S,  S ← S - η w ∂L/∂(w ⊙ m)   (Sanh et al., NeurIPS 2020): what grows stays
    nm         m = the N largest |w| of each M along the input channels; the slope is that of w ⊙ m
               plus λ (1 - m) ⊙ w (SR-STE, Zhou et al., ICLR 2021)

Pitfalls: momentum and weight decay move masked weights, so the mask is applied after every step,
not once. Masks of magnitude are the zeros of the weights themselves: nothing else has to be kept.
Batch norms, biases, depthwise layers and the first convolution are left dense unless named.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgecv.context import Context
from edgecv.errors import RecipeError, UnsupportedError
from edgecv.methods.distillation.distill_loss import DistillLoss
from edgecv.methods.training.loop import Trainer
from edgecv.methods.training.plan import Plan, learning_rate
from edgecv.models import layer_selection
from edgecv.models.layer_kinds import altered

log = logging.getLogger(__name__)
EVERY = 8  # steps between two looks at the masks


@dataclass(frozen=True)
class Rule:
    """How connections are chosen.

    density:   share that stays, by layer name; gradual: epochs of the schedule
    together:  one threshold for the whole network; pattern: (N, M) of method "nm"
    l1, l2:    terms in the loss; decay: λ of SR-STE
    """

    method: str
    density: Mapping[str, float]
    gradual: int
    together: bool = False
    pattern: tuple[int, int] = (2, 4)
    l1: float = 0.0
    l2: float = 0.0
    decay: float = 2e-4


def densities(
    module: nn.Module, density: float, given: Mapping[str, float], where: str,
    pattern: tuple[int, int] | None = None,
) -> dict[str, float]:  # fmt: skip
    """The share that stays, by layer. given: by name
    (`edgecv.models.layer_selection`), before the rest.

    Raises RecipeError: a name that matches nothing; UnsupportedError: nothing is left to prune.
    """
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    layer_selection.named(tuple(given), [n for n, _ in layers], where)
    for name, layer in layers:
        if why := altered(layer):  # what it multiplies with may be no zero where its weight is
            if any(layer_selection.is_named(name, key) for key in given):
                raise RecipeError(where, f"layer {name!r} {why}", "leave it out of `density`")
            log.warning("%s: %s %s: dense", where, name, why)
    layers = [(n, m) for n, m in layers if not altered(m)]
    first = next((n for n, m in layers if isinstance(m, nn.Conv2d)), "")
    found: dict[str, float] = {}
    for name, layer in layers:
        own = next((v for k, v in given.items() if layer_selection.is_named(name, k)), None)
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if own is None and (name == first or depthwise):
            continue
        if pattern and layer.weight.shape[1] % pattern[1]:
            log.warning("%s: %s has %d input channels, no multiple of %d: dense", where, name,
                        layer.weight.shape[1], pattern[1])  # fmt: skip
            continue
        found[name] = density if own is None else own
    if not found:
        raise UnsupportedError(where, "found no layer whose connections can go", "name some")
    return found


def top(scores: Tensor, count: int) -> Tensor:
    """1.0 at the `count` largest, 0.0 elsewhere; shaped as the scores."""
    mask = torch.zeros(scores.numel())
    mask[scores.flatten().topk(count).indices] = 1.0
    return mask.reshape(scores.shape)


def pattern_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """1.0 at the n largest |w| of each m along the input channels; (out, in, ...)."""
    last = weight.detach().abs().movedim(1, -1)
    groups = last.reshape(*last.shape[:-1], -1, m)
    chosen = torch.zeros_like(groups).scatter_(-1, groups.topk(n, -1).indices, 1.0)
    return chosen.reshape(last.shape).movedim(-1, 1)


def density_at(final: float, t: float) -> float:
    """The share that stays at t = 0 ... 1 of the schedule."""
    return 1.0 - (1.0 - final) * (1.0 - (1.0 - min(1.0, t)) ** 3)


class _Moved(torch.autograd.Function):
    """w ⊙ m, with the slope of the whole product for the scores."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[Tensor, Tensor, None]:
        (slope,), (weight, mask) = slopes, ctx.saved_tensors
        return slope * mask, slope * weight, None


class Moving(nn.Module):
    """The parametrization of movement pruning."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight), requires_grad=False)
        self.register_buffer("mask", torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        moved: Tensor = _Moved.apply(weight, self.scores, self.mask)
        return moved


class _Refined(torch.autograd.Function):
    """w ⊙ m; the slope passes through, and what is masked decays (SR-STE)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[Tensor, None, None]:
        (slope,), (weight, mask) = slopes, ctx.saved_tensors
        return slope + ctx.decay * (1.0 - mask) * weight, None, None


class Patterned(nn.Module):
    """The parametrization of N:M; `still` once the pattern is not to change any more."""

    def __init__(self, weight: Tensor, pattern: tuple[int, int], decay: float) -> None:
        super().__init__()
        self.pattern, self.decay, self.still = pattern, decay, False
        self.register_buffer("mask", pattern_mask(weight, *pattern))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and not self.still:
            self.mask = pattern_mask(weight, *self.pattern)
        refined: Tensor = _Refined.apply(weight, self.mask, self.decay)
        return refined


class Sparsifier(Trainer):
    """A Trainer that takes connections out by a rule, and keeps them out."""

    def __init__(
        self,
        module: nn.Module,
        plan: Plan,
        context: Context,
        rule: Rule,
        distill_loss: DistillLoss | None = None,
    ) -> None:
        layers = dict(module.named_modules())
        self.rule, self.step = rule, 0
        self.layers: dict[str, Any] = {name: layers[name] for name in rule.density}
        self.marks: dict[str, Any] = {}
        for name, layer in self.layers.items():
            if rule.method == "movement":
                self.marks[name] = Moving(layer.weight.detach())
            elif rule.method == "nm":
                self.marks[name] = Patterned(layer.weight.detach(), rule.pattern, rule.decay)
            if name in self.marks:
                parametrize.register_parametrization(layer, "weight", self.marks[name])
        super().__init__(module, context.images("train"), plan, context, distill_loss)
        for mark in self.marks.values():
            if isinstance(mark, Moving):  # not for the optimizer: its rates are not movement
                mark.scores.requires_grad_(True)
        self.masks = {n: torch.ones_like(self._weight(n)) for n in self.layers}

    def fit(self) -> dict[str, Any]:
        facts = super().fit()
        for layer in self.layers.values():
            if parametrize.is_parametrized(layer):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        return facts

    def mode(self, epoch: int) -> None:
        super().mode(epoch)
        self.step = epoch * self._steps()
        for name, mark in self.marks.items():
            self.masks[name] = mark.mask
            if isinstance(mark, Patterned):
                mark.still = epoch >= self.rule.gradual
        if not self.marks and self.step:  # also when a killed run goes on: zeros are the mask
            self.masks = {n: (self._weight(n) != 0).float() for n in self.layers}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        found = super().loss(x, y)
        for layer in self.layers.values() if self.rule.l1 or self.rule.l2 else ():
            found = found + self.rule.l1 * layer.weight.abs().sum()
            found = found + 0.5 * self.rule.l2 * layer.weight.square().sum()
        return found

    def _average(self) -> None:
        """After every step: scores, masks, zeros; then what the Trainer does."""
        self.step += 1
        schedule = self.rule.gradual * self._steps()
        if self.rule.method == "movement":
            self._move()
        due = self.step % EVERY == 0 or self.step == schedule
        if self.rule.method != "nm" and self.step <= schedule and due:
            self._choose(self.step / schedule)
        with torch.no_grad():
            for name, mask in self.masks.items() if not self.marks else ():
                self._weight(name).mul_(mask)
        super()._average()
        for name, mask in self.masks.items() if self.ema and not self.marks else ():
            self.ema[f"{name}.weight"] *= mask

    def _move(self) -> None:
        rate = learning_rate(self.plan, self.step - 1, self._steps())
        for mark in self.marks.values():
            if mark.scores.grad is not None:
                mark.scores.data -= rate * mark.scores.grad
                mark.scores.grad = None

    def _choose(self, t: float) -> None:
        """New masks, for the density at t of the schedule."""
        scores = {
            n: self.marks[n].scores.detach() if self.marks else self._weight(n).abs()
            for n in self.layers
        }
        if self.rule.together:
            sizes = {n: s.numel() for n, s in scores.items()}
            kept = sum(density_at(self.rule.density[n], t) * size for n, size in sizes.items())
            whole = top(torch.cat([s.flatten() for s in scores.values()]), round(kept))
            parts = whole.split(list(sizes.values()))
            found = {n: p.reshape(s.shape) for (n, s), p in zip(scores.items(), parts, strict=True)}
        else:
            found = {
                n: top(s, max(1, round(density_at(self.rule.density[n], t) * s.numel())))
                for n, s in scores.items()
            }
        for name, mask in found.items():
            self.masks[name] = mask
            if self.marks:
                self.marks[name].mask.copy_(mask)

    def _weight(self, name: str) -> Tensor:
        """The layer's own weight, before any mask."""
        layer = self.layers[name]
        marked = parametrize.is_parametrized(layer)
        weight: Tensor = layer.parametrizations.weight.original if marked else layer.weight
        return weight.detach()


def counted(module: nn.Module, layers: Sequence[str]) -> dict[str, Any]:
    """What is left of each layer, and what that is in bytes. Times are not in it: engines multiply
    by zero like by any number."""
    weights: dict[str, Any] = {name: module.get_submodule(name).weight for name in layers}
    kept = {n: [int((w != 0).sum()), int(w.numel())] for n, w in weights.items()}
    every = [v for v in module.state_dict().values() if v.is_floating_point()]
    total = sum(v.numel() for v in every)
    stays, dense = (sum(k[i] for k in kept.values()) for i in (0, 1))
    raw = b"".join(v.detach().float().contiguous().numpy().tobytes() for v in every)
    return {
        "layers": kept,
        "connections": dense,
        "connections_kept": stays,
        "times_fewer": round(dense / max(1, stays), 3),
        "bytes_dense": 4 * total,
        "bytes_values_and_bitmask": 4 * (total - dense + stays) + (dense + 7) // 8,
        "bytes_compressed": len(zlib.compress(raw, 9)),
        "time": "not won: engines multiply by zeros; what is measured says so",
    }
