"""What a network does with its input, seen by running it once: calls of torch functions, in order.

A network's forward is the user's own code. It is not traced into a graph but watched while it
runs (`torch.overrides.TorchFunctionMode`), so loops, padding by shape and functional calls are as
good as modules. Calls that matter for quantization are counted; the count names them again in
every later run, and their names are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecv.errors import UnsupportedError

_KINDS = {
    "layer": "conv1d conv2d conv3d conv_transpose2d linear matmul bmm __matmul__",
    "norm": "batch_norm",
    "clip": "relu relu_ relu6 hardtanh hardtanh_ clamp clamp_ clip clamp_min clamp_min_",
    "act": "sigmoid tanh hardswish hardsigmoid silu gelu leaky_relu leaky_relu_ elu prelu mish",
    "sum": "add add_ sub sub_ __rsub__ rsub mul mul_ div div_",
    "cat": "cat concat concatenate",
    "average": "avg_pool2d adaptive_avg_pool2d mean",
}
KINDS = {name: kind for kind, names in _KINDS.items() for name in names.split()}
# Their result holds the same values in another arrangement (or zeros, or some of them).
_MOVES = (
    "flatten view reshape max_pool2d adaptive_max_pool2d dropout dropout2d feature_dropout pad "
    "contiguous permute transpose squeeze unsqueeze chunk split __getitem__ clone to expand "
    "pixel_shuffle channel_shuffle narrow select movedim unflatten"
)
MOVES = frozenset(_MOVES.split())


@dataclass(frozen=True)
class Call:
    """One counted call.

    index:  its place among the counted calls. kind: a key of _KINDS
    inputs: numbers of the values that it read; output: of the value it made. 0 is the input
    where:  the module whose forward made it. parameter: the name of a layer's own weight, or ""
    shape:  of the result. most: the upper limit of a clip, or None
    """

    index: int
    name: str
    kind: str
    inputs: tuple[int, ...]
    output: int
    where: str
    parameter: str
    shape: tuple[int, ...]
    most: float | None


@dataclass(frozen=True)
class Seen:
    """The counted calls that depend on the input, and the number of the network's output.

    readers: value -> how many calls of any kind read it, those of no known kind included
    """

    calls: tuple[Call, ...]
    output: int
    readers: dict[int, int]


def counted(function: Any, result: Any) -> str:
    """The name of a call that counts, or "": the same in training and in evaluation."""
    name = getattr(function, "__name__", "")
    if name not in KINDS or not isinstance(result, Tensor) or not result.is_floating_point():
        return ""
    return name


class _Watch(TorchFunctionMode):
    def __init__(self, module: nn.Module, where: Callable[[], str]) -> None:
        super().__init__()
        self.where, self.index, self.calls = where, 0, list[Call]()
        self.names = {id(p): name for name, p in module.named_parameters()}
        self.values: dict[int, int] = {}
        self.readers: dict[int, int] = {}
        self.alive: list[Any] = []  # an id is a tensor's only while it lives
        self.made = 1

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        read = tuple(dict.fromkeys(self.values[id(t)] for t in _tensors(args, kwargs)
                                   if id(t) in self.values))  # fmt: skip
        result = func(*args, **(kwargs or {}))
        name = counted(func, result)
        index, self.index = self.index, self.index + bool(name)
        made = list(_tensors((result,), None))
        if not read or not made:
            return result
        self.alive.append(result)
        if getattr(func, "__name__", "") in MOVES:
            for tensor in made:
                self.values[id(tensor)] = read[0]
            return result
        for value in read:
            self.readers[value] = self.readers.get(value, 0) + 1
        number, self.made = self.made, self.made + 1
        for tensor in made:
            self.values[id(tensor)] = number
        if name:
            weight = self.names.get(id(args[1]), "") if _owns_weight(name, args) else ""
            self.calls.append(
                Call(index, name, KINDS[name], read, number, self.where(), weight,
                     tuple(result.shape), _limit(name, args, kwargs or {}))
            )  # fmt: skip
        return result


def watch(module: nn.Module, x: Tensor) -> Seen:
    """Run the network once in eval mode on x (N, C, H, W) and tell what it did.

    Raises UnsupportedError: its output is not one tensor made from its input.
    """
    stack = [""]
    hooks = []

    def leave(*_: Any) -> None:  # what a hook returns would be the module's result
        stack.pop()

    for name, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, n=name: stack.append(n)))
        hooks.append(part.register_forward_hook(leave))
    mode = _Watch(module.eval(), lambda: stack[-1])
    mode.values[id(x)] = 0
    try:
        with torch.no_grad(), mode:
            result = module(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(result, Tensor) or id(result) not in mode.values:
        what = f"returns a {type(result).__name__} that is not computed from its input"
        raise UnsupportedError(type(module).__name__, what)
    return Seen(tuple(mode.calls), mode.values[id(result)], mode.readers)


def _owns_weight(name: str, args: tuple[Any, ...]) -> bool:
    return name in ("conv2d", "linear") and len(args) > 1


def _limit(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Where a clip ends above, or None."""
    if name == "relu6":
        return 6.0
    given = {"hardtanh": ("max_val", 1.0), "clamp": ("max", None), "clip": ("max", None)}
    key, default = given.get(name.rstrip("_"), ("", None))
    limit = kwargs.get(key, args[2] if key and len(args) > 2 else default)
    return float(limit) if isinstance(limit, int | float) else None


def _tensors(args: Any, kwargs: dict[str, Any] | None) -> Iterator[Tensor]:
    """The tensors among arguments, one level of lists and tuples deep."""
    for value in (*args, *(kwargs or {}).values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (v for v in value if isinstance(v, Tensor))
