"""What a torch network returns, of whatever form, as tensors with names, in its own order.

    tensor                     "logits" where it is a row of classes (1, C), else "output"
    tuple, list                "output_0", "output_1", ...
    dict, dataclass, named     its keys or fields; {"levels": [a, b]} is "levels_0" and "levels_1"
    tuple of dicts             "output_0_boxes", ...

What holds one tensor alone is called as that tensor alone. Left out, with a note: members that are
None or plain Python values, and a tensor that is returned twice. Anything else may hold tensors
that cannot be seen, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.errors import ModelError

PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device)
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Outputs:
    """tensors: by name, in the network's order; notes: a sentence on each member left out."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[Tensor, ...]:
        """The tensors in their order."""
        return tuple(self.tensors.values())


def outputs_of(result: Any, where: str = "the network") -> Outputs:
    """The named tensors of what a network returned.

    Raises ModelError: no tensor in it, an object of another kind, sparse or complex numbers, floats
    other than float32.
    """
    kept: list[tuple[Place, Tensor]] = []
    notes = []
    for place, value in members(result):
        if isinstance(value, Tensor):
            _check(value, place, where)
            first = next((p for p, t in kept if t is value), None)
            if first is None:
                kept.append((place, value))
            else:
                notes.append(f"output {_name(place)!r} is left out: it is {_name(first)!r} again")
        elif value is None or isinstance(value, PLAIN):
            kind = "None" if value is None else f"a Python {type(value).__name__} and no tensor"
            notes.append(f"output {_name(place)!r} is left out: it is {kind}")
        else:
            at = f" in {_name(place)!r}" if place else ""
            hint = "return tensors, alone or in tuples, lists, dicts and dataclasses"
            raise ModelError(where, f"returns a {type(value).__name__}{at}", hint)
    if not kept:
        what = f"returns a {type(result).__name__} without a tensor"
        raise ModelError(where, what, "return what the network computes")
    return Outputs(dict(zip(_names(kept), (t for _, t in kept), strict=True)), tuple(notes))


def members(result: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """What containers hold, with its keys and positions; anything else as it is."""
    if isinstance(result, Mapping):
        items: Any = result.items()
    elif is_dataclass(result) and not isinstance(result, type):
        items = ((f.name, getattr(result, f.name)) for f in fields(result))
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        items = zip(result._fields, result, strict=True)
    elif isinstance(result, tuple | list):
        items = enumerate(result)
    else:
        yield place, result
        return
    for key, value in items:
        yield from members(value, (*place, key if isinstance(key, int) else str(key)))


def _names(kept: list[tuple[Place, Tensor]]) -> list[str]:
    """A name for each, no two alike, none of them the input's."""
    if len(kept) == 1 and not any(isinstance(part, str) for part in kept[0][0]):
        tensor = kept[0][1]
        return ["logits" if tensor.ndim == 2 and tensor.shape[0] == 1 else "output"]
    found: list[str] = []
    for place, _ in kept:
        name, number = _name(place), 2
        while name in found or name == "input":
            name, number = f"{_name(place)}_{number}", number + 1
        found.append(name)
    return found


def _name(place: Place) -> str:
    parts = [re.sub(r"\W+", "_", str(part), flags=re.ASCII).strip("_") for part in place]
    if not place or isinstance(place[0], int) or not parts[0]:
        parts.insert(0, "output")
    return "_".join(part for part in parts if part)


def _check(tensor: Tensor, place: Place, where: str) -> None:
    at = f"{where}: output {_name(place)!r}" if place else where
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ModelError(at, "is a sparse or quantized tensor", "return a plain one (`to_dense()`)")
    if tensor.is_complex():
        raise ModelError(at, "holds complex numbers", "return torch.view_as_real of it")
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(at, f"answers in {kind}, not in float32", "return float32")
    if not tensor.numel():
        raise ModelError(at, f"is empty: {tuple(tensor.shape)}", "leave it out of what is returned")


@contextmanager
def flat(module: nn.Module) -> Iterator[None]:
    """Meanwhile the network returns a tuple of `outputs_of`'s tensors. Its layers keep their names,
    which a wrapper around it would change."""
    hook = module.register_forward_hook(lambda _, __, result: outputs_of(result).values)
    try:
        yield
    finally:
        hook.remove()
