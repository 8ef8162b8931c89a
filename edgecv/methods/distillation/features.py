"""F_s ~ F_t: which features of two networks belong together, and how they are read.

A pair is named by the recipe (`pairs: {student layer: teacher layer}`), or found: at every height
and width that both networks pass through, the last layer of it, because that is where a stage of a
network ends. Where the teacher has a layer of the student's name with that size, that one is taken
(a pruned network and its origin), the last of that size otherwise. What the last dense layer reads
is a feature too, the embedding: `head.input` of a layer `head`.

Widths may differ: for hints a 1x1 convolution (a dense layer for vectors) maps the student's
channels to the teacher's. Adapters are trained beside the network and are no part of it: they are
in no saved Model and in no exported graph.

Pitfall: a layer followed by an in-place activation is read after it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.errors import StageError
from edgecv.methods.distillation import losses
from edgecv.methods.distillation.teacher import Translated

Pair = tuple[str, str]
INPUT = ".input"  # "head.input" is what the layer "head" reads


@dataclass(frozen=True)
class Weights:
    """w of every loss of features; 0 is off."""

    hints: float = 0.0
    attention: float = 0.0
    similarity: float = 0.0
    relational: float = 0.0

    def __bool__(self) -> bool:
        return any((self.hints, self.attention, self.similarity, self.relational))


class Features:
    """The pairs of two networks, the adapters between them, and their loss."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        sample: Tensor,
        weights: Weights,
        named: dict[str, str],
        where: str,
        seed: int = 0,
    ) -> None:
        """sample: images (N, C, H, W) to find shapes with; the networks stay as they are.

        Raises StageError: a layer that is not there, or nothing that belongs together.
        """
        self.student, self.weights = student, weights
        self.teacher = teacher.net if isinstance(teacher, Translated) else teacher  # own names
        own, other = shapes(student, sample), shapes(self.teacher, sample)
        self.pairs = _checked(named, own, other, where) if named else found(own, other)
        if not self.pairs:
            hint = "name pairs: {student layer: teacher layer}, or distil the logits alone"
            raise StageError(where, "teacher and student have no features of one size", hint)
        if weights.attention and not any(len(own[a]) == 4 for a, _ in self.pairs):
            raise StageError(
                where, "attention needs features with height and width", "use similarity or hints"
            )
        self.adapters = nn.ModuleDict()
        if weights.hints:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for a, b in self.pairs:
                    self.adapters[_key(a)] = _adapter(own[a], other[b])

    def loss(self, own: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        """Σ w F over the pairs (their mean), of what `reading` kept."""
        w, total, pairs = self.weights, torch.zeros(()), [_fit(own[a], other[b]) for a, b in
                                                          self.pairs]  # fmt: skip
        if w.hints:
            parts = [
                losses.hints(self.adapters[_key(a)](x), y)
                for (a, _), (x, y) in zip(self.pairs, pairs, strict=True)
            ]
            total = total + w.hints * torch.stack(parts).mean()
        if w.attention:
            maps = [losses.attention(x, y) for x, y in pairs if x.ndim == 4]
            total = total + w.attention * torch.stack(maps).mean()
        if w.similarity:
            parts = [losses.similarity(x, y) for x, y in pairs]
            total = total + w.similarity * torch.stack(parts).mean()
        if w.relational:  # of the embedding alone: the last features before the classes
            total = total + w.relational * losses.relational(*pairs[-1])
        return total

    @contextmanager
    def reading(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Two mappings that a forward pass inside fills with the features of the pairs."""
        own: dict[str, Tensor] = {}
        other: dict[str, Tensor] = {}
        hooks = [
            *_hooks(self.student, {a for a, _ in self.pairs}, own),
            *_hooks(self.teacher, {b for _, b in self.pairs}, other),
        ]
        try:
            yield own, other
        finally:
            for hook in hooks:
                hook.remove()


def shapes(module: nn.Module, sample: Tensor) -> dict[str, tuple[int, ...]]:
    """Layer -> shape of its output, in the order they end; not those that give the classes."""
    seen: dict[str, Tensor] = {}
    layers = dict(module.named_modules())
    names = {name for name in layers if name}
    names |= {f"{name}{INPUT}" for name in names if isinstance(layers[name], nn.Linear)}
    hooks = _hooks(module, names, seen)
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            classes = module(sample)
    finally:
        module.train(was)
        for hook in hooks:
            hook.remove()
    kept = {name: out for name, out in seen.items() if out is not classes and out.ndim in (2, 4)}
    return {name: tuple(out.shape) for name, out in kept.items()}


def found(own: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]]) -> list[Pair]:
    """The last layers of every size that both have, in the student's order."""
    last, theirs = ({s[2:]: name for name, s in shapes.items()} for shapes in (own, other))
    order = {name: i for i, name in enumerate(own)}
    pairs = []
    for size, name in last.items():
        if size and other.get(name, ())[2:] == size:
            pairs.append((name, name))
        elif size in theirs:
            pairs.append((name, theirs[size]))
    return sorted(pairs, key=lambda pair: order[pair[0]])


def _checked(
    named: dict[str, str], own: dict[str, Any], other: dict[str, Any], where: str
) -> list[Pair]:
    """The named pairs. Raises StageError for a layer that is not there, or of another kind."""
    for a, b in named.items():
        for name, known, who in ((a, own, "student"), (b, other, "teacher")):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                raise StageError(where, f"the {who} has no layer {name!r} with features", hint)
        if len(own[a]) != len(other[b]):
            raise StageError(where, f"{a!r} has shape {own[a]} and {b!r} {other[b]}", "pair others")
    return list(named.items())


def _hooks(module: nn.Module, names: set[str], into: dict[str, Tensor]) -> list[Any]:
    """Hooks that keep the outputs (or inputs) of the named layers, the latest call's last."""

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, given: Any, out: Any = None) -> None:
            value = given[0] if name.endswith(INPUT) else out
            if isinstance(value, Tensor):
                into.pop(name, None)  # a layer used twice stands where it was used last
                into[name] = value

        return keep

    made: list[Any] = []
    for name, layer in module.named_modules():
        if name in names:
            made.append(layer.register_forward_hook(keeper(name)))
        if f"{name}{INPUT}" in names:
            made.append(layer.register_forward_pre_hook(keeper(f"{name}{INPUT}")))
    return made


def _fit(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller height and width."""
    if own.ndim != 4 or own.shape[2:] == other.shape[2:]:
        return own, other
    size = (min(own.shape[2], other.shape[2]), min(own.shape[3], other.shape[3]))
    return functional.adaptive_avg_pool2d(own, size), functional.adaptive_avg_pool2d(other, size)


def _adapter(own: tuple[int, ...], other: tuple[int, ...]) -> nn.Module:
    """From the student's channels to the teacher's; nothing where they agree."""
    if own[1] == other[1]:
        return nn.Identity()
    return nn.Conv2d(own[1], other[1], 1) if len(own) == 4 else nn.Linear(own[1], other[1])


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ModuleDict allows no dots
