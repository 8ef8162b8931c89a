"""A convolution's integers in a Q/DQ graph, chosen by what its inputs look like (`rounding.py`).

ONNX Runtime's quantizer sets the scales and rounds each weight to the nearest integer; here the
float graph is run on the samples for H = E[x xᵀ] and those integers are replaced. Dense layers keep
theirs: they see one column an image, too few for H.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgecv.stages.quantize.onnx_ranges import layer_inputs
from edgecv.stages.quantize.rounding import columns, enough, round_weights

Weights = dict[str, tuple[np.ndarray, np.ndarray]]  # integers and their scales by weight name


def measure_moments(model: Any, samples: np.ndarray) -> dict[str, np.ndarray]:
    """The sum of x xᵀ over the samples, (groups, K, K), by the name of the weight x meets.

    Convolutions whose weight is a constant of their own and whose H has samples enough.
    """
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    uses = Counter(n for node in model.graph.node for n in node.input)
    layers = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and uses[node.input[1]] == 1
        if len(shapes.get(node.input[1], ())) == 4
    ]
    sums: dict[str, np.ndarray | None] = {}
    for inputs in layer_inputs(model, [n.input[0] for n in layers], samples):
        for node in layers:
            name = node.input[1]
            if sums.get(name, 0) is None:
                continue
            x = columns(inputs[node.input[0]][0], shapes[name][2:], *_geometry(node))
            if name not in sums and not enough(x, len(samples)):
                sums[name] = None
                continue
            sums[name] = sums.get(name, 0) + (x @ x.transpose(0, 2, 1)).astype(np.float64)
    return {name: h for name, h in sums.items() if h is not None}


def rounded(model: Any, quantized: Any, moments: dict[str, np.ndarray], limit: int) -> Weights:
    """Better integers, -limit..limit, for the scales that the quantized graph holds."""
    from onnx import numpy_helper

    floats = {t.name: t for t in model.graph.initializer}
    held = {t.name: t for t in quantized.graph.initializer}
    found: Weights = {}
    for name, h in moments.items():
        if f"{name}_quantized" not in held:
            continue
        w, s = (numpy_helper.to_array(t) for t in (floats[name], held[f"{name}_scale"]))
        scale = np.broadcast_to(s, len(w)).reshape(len(h), -1)
        q = round_weights(w.reshape(*scale.shape, -1), scale, h, limit)
        found[name] = q.reshape(w.shape).astype(np.int8), s
    return found


def put(quantized: Any, weights: Weights) -> None:
    """Write the integers into the quantized graph, in every channel that kept its scale.

    The quantizer raises the scale of a channel whose bias would overflow int32.
    """
    from onnx import numpy_helper

    held = {t.name: t for t in quantized.graph.initializer}
    for name, (q, scale) in weights.items():
        old = held[f"{name}_quantized"]
        same = np.atleast_1d(numpy_helper.to_array(held[f"{name}_scale"]) == scale)
        kept = same.reshape(-1, *[1] * (q.ndim - 1))
        new = np.where(kept, q, numpy_helper.to_array(old))
        old.CopyFrom(numpy_helper.from_array(new, old.name))


def _geometry(node: Any) -> tuple[list[int], list[int], list[int], int]:
    """Strides, dilations, pads and groups of a convolution."""
    known = {a.name: a for a in node.attribute}

    def numbers(name: str, default: list[int]) -> list[int]:
        return list(known[name].ints) if name in known else default

    groups = int(known["group"].i) if "group" in known else 1
    pads = numbers("pads", [0, 0, 0, 0])
    return numbers("strides", [1, 1]), numbers("dilations", [1, 1]), pads, groups
