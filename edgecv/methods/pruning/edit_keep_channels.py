"""The edit "keep_channels": of layers by name, the channels that stay.

{"op": "keep_channels", "step": "small", "modules": {"layer1.conv1": {"out": [0, 2, 5], "in": [0]}}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError
from edgecv.models.edits import Edit, named

if TYPE_CHECKING:
    import torch


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """Take the other channels out, in place. Raises ModelError: it does not fit."""
    for name, kept in edit["modules"].items():
        layer = named(module, name, edit)
        try:
            _shrink(layer, kept.get("out"), kept.get("in"))
        except (IndexError, KeyError, RuntimeError) as e:
            raise ModelError("model.json", f"edit does not fit layer {name!r}: {e}") from None


def _shrink(layer: Any, out: list[int] | None, inp: list[int] | None) -> None:
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        _shrink_conv(layer, out, inp)
    elif isinstance(layer, nn.Linear):
        rows = out if out is not None else range(layer.out_features)
        columns = inp if inp is not None else range(layer.in_features)
        _take(layer, "weight", list(rows), 0)
        _take(layer, "weight", list(columns), 1)
        _take(layer, "bias", list(rows), 0)
        layer.out_features, layer.in_features = len(rows), len(columns)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        keep = out if out is not None else inp
        for name in ("weight", "bias", "running_mean", "running_var"):
            _take(layer, name, list(keep or ()), 0)
        layer.num_features = len(keep or ())
    elif isinstance(layer, nn.PReLU):
        keep = out if out is not None else inp
        _take(layer, "weight", list(keep or ()), 0)
        layer.num_parameters = len(keep or ())
    else:
        raise ModelError("model.json", f"cannot keep channels of a {type(layer).__name__}")


def _shrink_conv(layer: Any, out: list[int] | None, inp: list[int] | None) -> None:
    """Rows and columns of a (grouped) convolution: weight is (out, in / groups, kh, kw)."""
    import torch

    per_in = layer.in_channels // layer.groups
    per_out = layer.out_channels // layer.groups
    rows = list(out) if out is not None else list(range(layer.out_channels))
    columns = list(inp) if inp is not None else list(range(layer.in_channels))
    if layer.groups > 1 and per_in == 1 == per_out:  # depthwise: in and out are one list
        rows = columns = list(out if out is not None else columns)
    inside: dict[int, list[int]] = {}
    for c in columns:
        inside.setdefault(c // per_in, []).append(c % per_in)
    kept = [layer.weight.data[r][inside[r // per_out]] for r in rows]
    layer.weight = torch.nn.Parameter(torch.stack(kept).contiguous())
    _take(layer, "bias", rows, 0)
    layer.out_channels, layer.in_channels, layer.groups = len(rows), len(columns), len(inside)


def _take(layer: Any, name: str, keep: list[int], axis: int) -> None:
    import torch

    old = getattr(layer, name, None)
    if old is None:
        return
    new = old.data.index_select(axis, torch.tensor(keep, dtype=torch.long)).clone()
    setattr(layer, name, torch.nn.Parameter(new) if isinstance(old, torch.nn.Parameter) else new)


def describe(edit: Edit) -> str:
    """One line of history."""
    widths = [
        f"{name} {kept['was']}→{len(kept['out'])}"
        for name, kept in edit["modules"].items()
        if "was" in kept and len(kept.get("out", ())) < kept["was"]
    ]
    return f"{edit['step']}: kept channels of {len(widths)} layers: {', '.join(widths)}"


def can_shrink(layer: torch.nn.Module) -> bool:
    """Whether `keep_channels` knows how to take channels from a layer of this type."""
    from torch import nn

    known = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.PReLU)
    return isinstance(layer, known)


def conflicts(edit: Edit, later: Edit) -> None:
    """None: narrower layers are layers as before."""
