"""A network that runs with its quantizers, and the float network inside it.

ŵ = quantizer(w) goes into the layer in place of w, and quantizer(y) comes out in place of y, at
the calls that an edit names. The network's own parameters keep their names; the steps are
`fake_quantizers.<name>.step` (or .alpha) beside them, which is where weights.safetensors has them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecv.errors import ModelError
from edgecv.methods.qat.calls import counted
from edgecv.methods.qat.lsq import Lsq
from edgecv.methods.qat.pact import Pact
from edgecv.models.edits import Edit

NAME = "fake_quantizers"


class Quantizers(nn.ModuleDict):
    """All quantizers of a network, by name.

    active: off, the network computes in float. watch: called with a quantizer's name and the
    tensors that it is for, before they are quantized
    """

    def __init__(self, made: dict[str, nn.Module]) -> None:
        super().__init__(made)
        self.active = True
        self.watch: Callable[[str, Tensor], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x as it is: a network that runs its children one after another runs this one too."""
        return x

    def of(self, name: str, x: Tensor) -> Tensor:
        """x, quantized by that one."""
        if self.watch is not None:
            self.watch(name, x)
        quantized: Tensor = self[name](x) if self.active else x
        return quantized


class _Quantizing(TorchFunctionMode):
    """Counts a network's calls as `calls.watch` did, and quantizes at the places given."""

    def __init__(self, places: dict[int, dict[str, Any]], quantizers: Quantizers) -> None:
        super().__init__()
        self.places, self.quantizers, self.index = places, quantizers, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        place = self.places.get(self.index)
        if place is None or getattr(func, "__name__", "") != place["name"]:
            result = func(*args, **(kwargs or {}))
            if counted(func, result):
                if place is not None:
                    self._changed(place, func.__name__)
                self.index += 1
            return result
        if "weight" in place and self.quantizers.active:
            args = (args[0], self.quantizers[place["weight"]](args[1]), *args[2:])
        result = func(*args, **(kwargs or {}))
        if not counted(func, result):
            return result
        self.index += 1
        if "output" not in place:
            return result
        quantized = self.quantizers.of(place["output"], result)
        if self.quantizers.watch is not None and args and isinstance(args[0], list | tuple):
            for joined in args[0]:  # what a concatenation reads is on its grid
                self.quantizers.watch(place["output"], joined)
        return quantized

    def _changed(self, place: dict[str, Any], found: str) -> None:
        what = f"call {place['call']} of its forward is {found}, was {place['name']}"
        raise ModelError("model.json", what, "the network's own code has changed: run qat again")


def attach(module: nn.Module, edit: Edit) -> None:
    """Put the quantizers of an edit into a network, in place; their steps are 1 until loaded."""
    if NAME in dict(module.named_children()):
        raise ModelError("model.json", "has two edits with quantizers")
    made = {name: _make(edit["method"], q) for name, q in edit["quantizers"].items()}
    module.add_module(NAME, Quantizers(made))
    places = {place["call"]: place for place in edit["calls"]}
    entered = "input" in edit["quantizers"]

    def forward(self: nn.Module, x: Tensor) -> Any:
        quantizers = of(self)
        if entered:
            x = quantizers.of("input", x)
        with _Quantizing(places, quantizers):
            return type(self).forward(self, x)

    module.forward = MethodType(forward, module)


def of(module: nn.Module) -> Quantizers:
    """The quantizers of a network that has them."""
    found = module.get_submodule(NAME)
    assert isinstance(found, Quantizers)
    return found


def has_quantizers(module: nn.Module) -> bool:
    return isinstance(getattr(module, NAME, None), Quantizers)


def _make(method: str, q: dict[str, Any]) -> nn.Module:
    most = q.get("most")
    if "parameter" in q:
        return Lsq(q["low"], q["high"], q["channels"], weight=True)
    return (Pact if method == "pact" else Lsq)(q["low"], q["high"], most=most)


def rounded(module: nn.Module, edit: Edit) -> nn.Module:
    """A copy whose layers hold ŵ for w and whose quantizers are off: a float network that still
    tells its tensors to `watch`.
    """
    made = copy.deepcopy(module).eval()
    quantizers = of(made)
    with torch.no_grad():
        for name, q in edit["quantizers"].items():
            if "parameter" in q:
                weight = made.get_parameter(q["parameter"])
                weight.copy_(quantizers[name](weight))
    quantizers.active = False
    return made


def plain(module: nn.Module) -> nn.Module:
    """The network without quantizers, in place: the float network of its own code."""
    delattr(module, NAME)
    del module.forward
    return module
