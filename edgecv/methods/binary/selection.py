"""Which layers get one bit, and what stands behind each: seen by running the network once.

Left in float are the first and the last layer, 1x1 convolutions with a stride (the projections of
residual networks: Bi-Real, ReActNet keep them) and what reads too few values for a sign to say
anything (FEW). A batch norm that alone reads a layer becomes a part of it; a ReLU module behind,
or behind the sum that reads it, becomes RPReLU where the form asks for that.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn

from edgecv.errors import UnsupportedError
from edgecv.methods.qat.calls import Call, Seen, watch
from edgecv.models.layer_kinds import altered

BATCH_NORMS = nn.BatchNorm2d | nn.BatchNorm1d
FEW = 32  # products of one output; a 3x3 layer of a grey image has 9


def choose(
    module: nn.Module, x: Tensor, where: str, wanted: set[str] | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({layer: {"norm": name or None, "act": name or None}}, {layer: why it stays in float}).

    x: images (1, C, H, W). wanted: names that the recipe gives, which are taken though they are
    first, last or projections; None: all that make sense. Raises UnsupportedError: none is left.
    """
    seen = watch(module, x)
    calls = [c for c in seen.calls if c.parameter]
    uses = Counter(c.where for c in seen.calls)
    found: dict[str, dict[str, Any]] = {}
    kept: dict[str, str] = {}
    for place, call in enumerate(calls):
        name = call.parameter.removesuffix(".weight")
        layer = module.get_submodule(name)
        why = _refusal(layer, uses[name], call.shape)
        if not why and wanted is None:
            why = _custom(layer, place == 0, place == len(calls) - 1)
        if wanted is not None and name not in wanted:
            continue
        if why:
            kept[name] = why
        else:
            found[name] = _behind(module, seen, call, uses)
    if not found:
        told = "; ".join(f"{n} {why}" for n, why in list(kept.items())[:3]) or "there is none"
        raise UnsupportedError(where, f"no layer can have one bit: {told}")
    return found, kept


def _refusal(layer: nn.Module, uses: int, shape: tuple[int, ...]) -> str:
    """Why a layer whose result has that shape cannot have one bit, or ""."""
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return f"is a {type(layer).__name__}"
    if why := altered(layer):
        return why
    if uses != 1:
        return "runs more than once" if uses else "is not called itself: its weight is"
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"pads with {layer.padding_mode}"
    if isinstance(layer, nn.Linear) and len(shape) != 2:
        return "is a dense layer over many rows"
    weight = layer.get_parameter("weight")
    products = weight.numel() // len(weight)
    if products < FEW:
        return f"adds {products} products: a sign says too little"
    return ""


def _custom(layer: nn.Module, first: bool, last: bool) -> str:
    if first or last:
        return "is the first" if first else "is the last"
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1):
        return "is a projection"
    return ""


def _behind(module: nn.Module, seen: Seen, call: Call, uses: Counter[str]) -> dict[str, Any]:
    """The names of the batch norm and of the ReLU that belong to a layer."""
    norm, value = None, call.output
    reader = _reader(seen, value)
    if reader and reader.kind == "norm":
        part = module.get_submodule(reader.where)
        if isinstance(part, BATCH_NORMS) and not altered(part) and uses[reader.where] == 1:
            norm, value = reader.where, reader.output
            reader = _reader(seen, value)
    if reader and reader.kind == "sum":
        reader = _reader(seen, reader.output)
    act = None
    if reader and reader.kind == "clip" and uses[reader.where] == 1:
        part = module.get_submodule(reader.where)
        act = reader.where if type(part) is nn.ReLU and not altered(part) else None
    return {"norm": norm, "act": act}


def _reader(seen: Seen, value: int) -> Call | None:
    """The one call that reads a value, or None."""
    if seen.readers.get(value, 0) != 1:
        return None
    return next((c for c in seen.calls if value in c.inputs), None)
