"""Networks that a Python program hands over as objects: `edgecv.export(net, ...)`.

A Model names the function that builds its network, and of an object there is none. So it is held
here by a name while it is worked on, and "built" by copying it: in this process alone. Nothing of
what is done to the copy reaches the object.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from edgecv.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

SCHEME = "<object>:"  # no module is called so
_HELD: dict[str, tuple[nn.Module, str]] = {}  # builder -> the object, and a digest of its own


def is_live(builder: str) -> bool:
    """Whether a builder's name is of an object that is or was held here."""
    return builder.startswith(SCHEME)


def is_any_held() -> bool:
    """Whether there is a network that only this process has."""
    return bool(_HELD)


def called(builder: str) -> str:
    """The name of the object's class."""
    return builder.removeprefix(SCHEME).partition("#")[0]


@contextmanager
def held(module: nn.Module) -> Iterator[str]:
    """The builder of a network meanwhile, "<object>:TinyNet"."""
    from edgecv.models.folding import unwrapped

    module, number = unwrapped(module), 1
    builder = first = f"{SCHEME}{type(module).__name__}"
    while builder in _HELD:
        builder, number = f"{first}#{number + 1}", number + 1
    _HELD[builder] = module, uuid4().hex[:16]
    try:
        yield builder
    finally:
        del _HELD[builder]


def copied(builder: str) -> nn.Module:
    """A copy of the network that is held by that name.

    Raises ModelError: none is, or it cannot be copied.
    """
    import torch

    if builder not in _HELD:
        what = "was an object of a Python program, which a folder does not hold"
        raise ModelError(builder, what, "give the function that builds it: module:function")
    module = _HELD[builder][0]
    memo = {}  # what a hook computed from weights is no parameter, and torch does not copy it
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as e:
        what = f"cannot be copied: {type(e).__name__}: {e}"
        raise ModelError(builder, what, "give the function that builds it: module:function") from e


def digest(builder: str) -> str:
    """Of this object and no other, "" where it is no longer held: its code is not looked at."""
    return _HELD[builder][1] if builder in _HELD else ""
