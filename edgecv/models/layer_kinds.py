"""Is this layer what its class says? The one place that answers, for every room that asks.

A room that cuts, factorises, replaces or rounds a layer reads its fields (stride, padding, weight)
and believes that the library's own forward is what runs. That is not so for a subclass with a
forward of its own (padding computed from the input, weights standardised), for a forward put onto
one object, or where a hook changes what goes in or comes out. Such layers stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# What a library class's forward calls on itself: another one of these is another layer too.
INNER = ("forward", "__call__", "_conv_forward", "_output_padding", "_check_input_dim")


def altered(layer: nn.Module) -> str:
    """Why a layer does not compute what the class of torch.nn that it is, or is of, computes.

    "" where it does. Reads as the end of "layer X ...".
    """
    kind = type(layer)
    base = next((c for c in kind.__mro__ if c.__module__.startswith("torch.nn.")), kind)
    if any(getattr(kind, key, None) is not getattr(base, key, None) for key in INNER) or any(
        key in vars(layer) for key in INNER
    ):
        return f"is a {kind.__name__} with a forward of its own"
    if layer._forward_pre_hooks or layer._forward_hooks:
        return "has a hook on its forward"
    if hasattr(layer, "parametrizations"):
        return "computes its weight at every call"
    if any(hasattr(kind, key) and not hasattr(base, key) for key in ("weight", "bias")):
        return f"is a {kind.__name__} that computes its weight"
    return ""
