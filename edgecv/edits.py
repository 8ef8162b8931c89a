"""Structural edits: what was done to a network's shape, as data that can be replayed.

An edit is plain JSON with an `op`, the `step` that made it, and what the op needs. Replaying a
Model is: build the dense network, apply its edits in order, load the weights. Replay needs no
pruning library and no tracing: an edit names modules and the indices that stay.

    keep_channels   {"modules": {"layer1.conv1": {"out": [0, 2, 5], "in": [0, 1]}}}
    connections     {"layers": {name: [kept, of]}}: zeros among the weights; no shape changes
    quantizers      {"method": "lsq", "quantizers": {name: {"bits": 8, "low": 0, "high": 255, ...}},
                     "calls": [{"call": 2, "name": "relu", "output": name}]} (`edgecv.quantizers`)
    replace         {"modules": {"layer1.conv1": {"into": "separable", "c_in": 16, ...}}}
                     (`edgecv.restructuring`)
    factorize       {"layers": {"conv2": {"form": "tucker2", "ranks": [16, 32]}}} (`edgecv.lowrank`)
    binarize        {"layers": {name: {"norm": name, "act": name}}, "form": "react", ...}
                     (`edgecv.binary`)
    structured      {"layers": {"fc": {"structure": "toeplitz", "rank": 4}}} (`edgecv.lowrank`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError

if TYPE_CHECKING:
    import torch

Edit = dict[str, Any]


def replay(module: torch.nn.Module, edit: Edit) -> None:
    """Apply one edit to a module in place. Raises ModelError: unknown op, or it does not fit."""
    op = edit.get("op")
    if op not in OPS:
        raise ModelError(
            "model.json", f"unknown edit {op!r}", "this Model is from a newer edgecv: upgrade"
        )
    OPS[op](module, edit)


def describe(edit: Edit) -> str:
    """One line of history: what the edit did."""
    if edit.get("op") == "quantizers":
        bits = {kind: sorted({q["bits"] for q in edit["quantizers"].values()
                              if ("parameter" in q) == (kind == "weights")})
                for kind in ("weights", "activations")}  # fmt: skip
        told = ", ".join(f"{kind} of {'/'.join(map(str, b))} bits" for kind, b in bits.items())
        return f"{edit['step']}: learned ranges ({edit['method']}): {told}"
    if edit.get("op") == "replace":
        from edgecv.restructuring import describe as replaced

        return replaced(edit)
    if edit.get("op") == "binarize":
        from edgecv.binary import replacing

        return replacing.told(edit)
    if edit.get("op") in ("factorize", "structured"):
        from edgecv.lowrank import history

        return history.told(edit)
    if edit.get("op") == "connections":
        kept, total = map(sum, zip(*edit["layers"].values(), strict=True))
        layers = len(edit["layers"])
        return f"{edit['step']}: {kept:,} of {total:,} connections of {layers} layers stay"
    if edit.get("op") != "keep_channels":
        return f"{edit.get('step')}: {edit.get('op')}"
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


def named(module: torch.nn.Module, name: str, edit: Edit) -> Any:
    """The layer that an edit names. Raises ModelError where it is not there."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise ModelError(
            "model.json",
            f"edit of step {edit.get('step')!r} names layer {name!r}, which is not there",
            "the network's own code has changed since this Model was saved",
        ) from None


def put(module: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    """`new` wherever `old` hangs in the network, in its mode: a shared layer has several names."""
    new.train(old.training)
    for parent in list(module.modules()):
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = new


def _keep_channels(module: torch.nn.Module, edit: Edit) -> None:
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


def _quantizers(module: torch.nn.Module, edit: Edit) -> None:
    from edgecv.quantizers.attach import attach

    try:
        attach(module, edit)
    except (KeyError, TypeError) as e:
        raise ModelError("model.json", f"the edit of step {edit.get('step')!r} lacks {e}") from None


def _replace(module: torch.nn.Module, edit: Edit) -> None:
    from edgecv.restructuring.replacing import replace

    replace(module, edit)


def _lowrank(module: torch.nn.Module, edit: Edit) -> None:
    from edgecv.lowrank import history

    history.replay(module, edit)


def _binarize(module: torch.nn.Module, edit: Edit) -> None:
    from edgecv.binary.replacing import binarize

    binarize(module, edit)


def _connections(module: torch.nn.Module, edit: Edit) -> None:
    """Nothing: the zeros are in the weights."""


OPS = {
    "keep_channels": _keep_channels,
    "connections": _connections,
    "quantizers": _quantizers,
    "replace": _replace,
    "factorize": _lowrank,
    "structured": _lowrank,
    "binarize": _binarize,
}
