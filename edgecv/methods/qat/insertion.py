"""Where quantizers go: the tensors that an int8 engine holds as integers, and with how many bits.

    input, [layer (+ batch norm)] [+ clip], activation, sum, concatenation, average pool

Engines fuse a batch norm and a ReLU into the layer or the sum before them, so what lies between
stays float; inputs that only a concatenation reads are computed on its grid. A pool that averages
less than the whole image keeps its input's grid. What joins several tensors behind the last layer
(boxes beside scores) has none: engines keep them apart, or calibrate that. Weights of conv2d and
linear: a step for each output channel, one for a dense layer (the Edge TPU takes no other).

First and last layer, network input and output have 8 bits, as in the papers (7, where all weights
are asked to have 7: processors without VNNI take no more); what no layer reads (operands of sums)
has 8 bits too, because engines add in 8 bits.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from edgecv.errors import UnsupportedError
from edgecv.methods.qat.calls import Call, Seen, watch
from edgecv.methods.qat.lsq import levels
from edgecv.models.edits import Edit


def choose(
    module: nn.Module, x: Tensor, step: str, method: str, weight_bits: int, activation_bits: int
) -> Edit:
    """The edit "quantizers" for a float network; levels of activations are not chosen yet.

    x: images (N, C, H, W), what the network is run on. Raises UnsupportedError: no layer.
    """
    seen = watch(module, x)
    layers = [c for c in seen.calls if c.parameter]
    if not layers:
        raise UnsupportedError(step, "has no conv2d and no linear layer", "nothing to quantize")
    ends = {layers[0].parameter, layers[-1].parameter}
    kinds = dict(module.named_parameters())
    quantizers: dict[str, dict[str, Any]] = {}
    calls: dict[int, dict[str, Any]] = {}
    for c in layers:
        name, shape = _name(c.parameter), kinds[c.parameter].shape
        bits = 8 if c.parameter in ends and weight_bits < 7 else weight_bits
        low, high = levels(bits)
        quantizers[name] = {"bits": bits, "low": low, "high": high, "parameter": c.parameter,
                            "channels": shape[0] if len(shape) == 4 else 1}  # fmt: skip
        calls[c.index] = {"call": c.index, "name": c.name, "weight": name}
    tensors: dict[int, str] = {}
    if not _absorbed(seen, 0, ""):
        tensors[0] = "input"
        quantizers["input"] = {"bits": 8, "channels": 1}
    apart = _joined(seen)
    for c in seen.calls:
        if c.index in apart or _absorbed(seen, c.output, c.kind):
            continue
        if c.kind == "average" and _keeps_grid(c) and c.inputs[0] in tensors:
            name = tensors[c.inputs[0]]
        else:
            name = _fresh(f"{_name(c.where)}_{c.name}".strip("_"), quantizers)
            bits = _bits(seen, c.output, layers[-1], activation_bits)
            quantizers[name] = {"bits": bits, "channels": 1, **({"most": c.most} if c.most else {})}
        tensors[c.output] = name
        place = calls.setdefault(c.index, {"call": c.index, "name": c.name})
        place["output"] = name
    for c in layers:
        calls[c.index] |= _bias(seen, c, tensors)
    return {
        "op": "quantizers", "step": step, "method": method, "quantizers": quantizers,
        "calls": [calls[i] for i in sorted(calls)],
    }  # fmt: skip


def _bias(seen: Seen, layer: Call, tensors: dict[int, str]) -> dict[str, str]:
    """What the grid of a layer's bias hangs on: the quantizer it reads, the batch norm behind."""
    if len(layer.inputs) != 1 or layer.inputs[0] not in tensors:
        return {}
    found = {"reads": tensors[layer.inputs[0]]}
    reader = next((c for c in seen.calls if layer.output in c.inputs), None)
    if reader is not None and reader.kind == "norm":
        if seen.readers[layer.output] > 1:
            return {}  # not folded
        found["norm"] = reader.where
    return found


def _joined(seen: Seen) -> set[int]:
    """The calls behind the last layer, where a concatenation is among them."""
    last = max(c.index for c in seen.calls if c.kind == "layer")
    tail = [c for c in seen.calls if c.index > last and c.kind not in ("norm", "clip")]
    joins = any(c.kind == "cat" and len(c.inputs) > 1 for c in tail)
    return {c.index for c in tail} if joins else set()


def _absorbed(seen: Seen, value: int, kind: str) -> bool:
    """Whether an engine never holds this value: its one reader is fused with what made it."""
    if value == seen.output or seen.readers.get(value, 0) != 1:
        return False
    reader = next((c for c in seen.calls if value in c.inputs), None)
    if reader is None:
        return False
    if reader.kind == "cat" and value:
        return True
    fused = {"layer": ("norm", "clip"), "norm": ("clip",), "sum": ("clip",)}
    return reader.kind in fused.get(kind, ())


def _keeps_grid(c: Call) -> bool:
    return c.name != "mean" and not (c.name == "adaptive_avg_pool2d" and c.shape[-2:] == (1, 1))


def _bits(seen: Seen, value: int, last: Call, asked: int) -> int:
    readers = [c for c in seen.calls if value in c.inputs]
    if value == seen.output or last in readers:
        return 8
    return asked if any(c.kind == "layer" for c in readers) else 8


def _name(path: str) -> str:
    return re.sub(r"\W", "_", path.removesuffix(".weight"))


def _fresh(name: str, taken: dict[str, Any]) -> str:
    candidates = [name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))]
    return next(c for c in candidates if c not in taken)
