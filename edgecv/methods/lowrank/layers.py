"""Which layers of a network can be written as products, and what they read.

    C = E[x xᵀ]   over the patches x of real images that a layer's weight is multiplied with

A layer counts when its own forward is what runs: a network that reads `layer.weight` for a product
of its own, or shares a weight between layers, keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import RecipeError
from edgecv.methods.lowrank.form import Shape, shape_of
from edgecv.models.layer_kinds import altered
from edgecv.models.layer_selection import hint, is_named

if TYPE_CHECKING:
    import torch
    from torch import nn

PATCHES = 64  # of one image, drawn at random where there are more
RIDGE = 1e-3  # of the mean energy, on all directions: a sample does not show everything


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer that runs.

    refusal: why it stays as it is; "" when it need not
    """

    name: str
    shape: Shape
    refusal: str = ""


def found(module: nn.Module, example: torch.Tensor) -> list[Layer]:
    """Every convolution and dense layer that runs on the example, in order."""
    import torch
    from torch import nn

    names: dict[nn.Module, str] = {}
    for name, part in module.named_modules():
        names.setdefault(part, name)
    own = {part: altered(part) for part in names}  # before there are hooks of ours
    seen: dict[str, tuple[Any, Any, Any]] = {}

    def keep(part: Any, inputs: Any, output: Any) -> None:
        seen.setdefault(names[part], (part, inputs[0], output))

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [p.register_forward_hook(keep) for p in names if isinstance(p, kinds)]
    try:
        with torch.no_grad():
            module.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    holders: dict[int, int] = {}
    for part in names:
        for parameter in part.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    return [
        Layer(name, _shape(part, x, y), own[part] or _refusal(part, holders))
        for name, (part, x, y) in seen.items()
    ]


def chosen(
    layers: Sequence[Layer], patterns: Sequence[str], module: nn.Module, where: str
) -> set[str]:
    """Names that match one of the patterns; all where there are none.

    Raises RecipeError: a pattern that matches nothing, or only what cannot be factorised.
    """
    if not patterns:
        return {layer.name for layer in layers}
    every = {layer.name: layer for layer in layers}
    names = set()
    for pattern in patterns:
        matched = {name for name in every if is_named(name, pattern)}
        if not matched:
            raise RecipeError(f"{where}: layers", *_unmatched(pattern, every, module))
        refused = {name for name in matched if every[name].refusal}
        if matched == refused:
            name = sorted(refused)[0]
            raise RecipeError(f"{where}: layers", f"layer {name!r} {every[name].refusal}")
        names |= matched
    return names


def _unmatched(pattern: str, every: dict[str, Layer], module: nn.Module) -> tuple[str, str]:
    """What is wrong with a pattern, and a hint."""
    parts: dict[str, Any] = dict(module.named_modules())
    if pattern in parts:
        what = f"{pattern!r} is a {type(parts[pattern]).__name__}"
        if hasattr(parts[pattern], "weight") and parts[pattern].weight.ndim > 1:
            what += " that does not run by itself"
        return what, f"its layers can be {', '.join(every)}"
    return f"no layer {pattern!r}", hint(pattern, list(every))


def _shape(part: Any, x: Any, y: Any) -> Shape:
    if x.ndim == 4 and hasattr(part, "kernel_size"):
        return shape_of(part, _sides(x), _sides(y))
    rows = int(np.prod(x.shape[1:-1])) if x.ndim > 1 else 1
    return shape_of(part, (rows, 1), (rows, 1))


def _sides(x: Any) -> tuple[int, int]:
    return int(x.shape[2]), int(x.shape[3])


def _refusal(part: Any, holders: dict[int, int]) -> str:
    if getattr(part, "groups", 1) > 1:
        return "is a grouped convolution already"
    if holders[id(part.weight)] > 1:
        return "shares its weight with another layer"
    return ""


def covariance(
    module: nn.Module, name: str, x: torch.Tensor, seed: int = 0, batch: int = 32
) -> np.ndarray:
    """E[x xᵀ] (in · kh · kw squared) of what a layer reads, a little of the identity added.

    x: float32 (N, C, H, W), as the network takes them
    """
    import torch

    part: Any = module.get_submodule(name)
    size = part.weight[0].numel()
    total, count = torch.zeros(size, size, dtype=torch.float64), 0
    generator = torch.Generator().manual_seed(seed)

    def add(_: Any, inputs: Any) -> None:
        nonlocal count
        rows = _patches(part, inputs[0].detach(), generator)
        total.add_((rows.T @ rows).double())
        count += len(rows)

    hook = part.register_forward_pre_hook(add)
    try:
        with torch.no_grad():
            for i in range(0, len(x), batch):
                module.eval()(x[i : i + batch])
    finally:
        hook.remove()
    found = (total / max(1, count)).numpy()
    return np.asarray(found + np.eye(size) * max(RIDGE * np.trace(found) / size, 1e-12))


def _patches(part: Any, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(count, in · kh · kw): rows in the order of the weight's columns."""
    import torch
    from torch import nn
    from torch.nn import functional

    if isinstance(part, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    mode = "constant" if part.padding_mode == "zeros" else part.padding_mode
    x = functional.pad(x, part._reversed_padding_repeated_twice, mode=mode)
    columns = functional.unfold(x, part.kernel_size, part.dilation, 0, part.stride)
    if columns.shape[2] > PATCHES:
        order = torch.randperm(columns.shape[2], generator=generator)[:PATCHES]
        columns = columns[..., order]
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])
