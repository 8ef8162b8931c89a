"""A first layer of few channels in integers: space to depth, and smaller steps.

    conv(image; v) of kernel k, stride s, pads p  =  conv(z; w) of kernel k' / s, stride 1
    z[(dy, dx, c), y, x] = image[c, s y + dy, s x + dx]
    w[o, (dy, dx, c), i, j] = v'[o, c, s i + dy, s j + dx]

v' is v with zeros around it, as many as bring its pads to multiples of s. The same sums, and
ONNX Runtime's integer convolutions collect what they multiply by channels: three bytes at a time
take longer than twelve do, whatever zeros are multiplied on top. Milliseconds of one thread, from a
float image to integers behind the layer (Xeon with AVX-512 VNNI, ONNX Runtime 1.31):

    channels, kernel, filters, image      as it is    space to depth    in float
    3, 6x6, 16, 416                         4.18           2.51           3.03
    3, 3x3, 24, 352                         2.35           1.51           2.13
    3, 3x3, 32, 224                         0.96           0.59           0.76
    3, 7x7, 64, 224                         2.24           1.33           2.60
    1, 3x3, 16, 224                         0.55           0.38           0.37
    4, 3x3, 16, 224                         0.51           0.56           0.47

The whole of FastestDet takes 0.85 of its time, of EfficientNet-Lite0 0.93.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes
from edgecv.graphs.onnx.index import Index

FEW = 4  # channels from which on it gains nothing


def rearranged(model: Any) -> int:
    """Rewrite such layers of a Q/DQ onnx.ModelProto in place; how many there were."""
    draft, count = Draft(model, "compile"), 0
    for conv in draft.nodes("Conv"):
        index = Index(draft.graph)
        unpack, weight = (index.makers.get(n) for n in conv.input[:2])
        if unpack is None or weight is None or weight.input[0] not in index.held:
            continue
        if {unpack.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        alone = index.uses[unpack.output[0]] == index.uses[weight.output[0]] == 1
        found = _smaller(draft, conv, unpack.input[0]) if alone else None
        if found is None or index.uses[weight.input[0]] > 1:
            continue
        _rearrange(draft, conv, unpack, weight, found)
        count += 1
    return count


def _smaller(draft: Draft, conv: Any, x: str) -> tuple[int, int, list[int]] | None:
    """(step, zeros in front of the kernel, pads of the new layer); None where it is none."""
    given, shape, out = (
        attributes(conv), draft.known_shape(x), draft.known_shape(conv.output[0]),
    )  # fmt: skip
    strides, pads = given.get("strides", [1, 1]), given.get("pads", [0] * 4)
    kernel = given.get("kernel_shape")
    if shape is None or out is None or kernel is None or len(shape) != 4:
        return None
    found = smaller_steps((out[1], shape[1], *kernel), strides, pads, given.get("group", 1))
    if found is None or {*given.get("dilations", [1])} != {1}:
        return None
    step, zeros = found
    if given.get("auto_pad", "NOTSET") != "NOTSET" or shape[2] % step or shape[3] % step:
        return None
    first = (pads[0] + zeros) // step
    size = -(-(zeros + kernel[0]) // step)
    ends = [out[i] - 1 + size - shape[i] // step - first for i in (2, 3)]
    return None if min(ends) < 0 else (step, zeros, [first, first, *ends])


def _rearrange(
    draft: Draft, conv: Any, unpack: Any, weight: Any, found: tuple[int, int, list[int]]
) -> None:
    from onnx import numpy_helper

    step, zeros, pads = found
    x = unpack.input[0]
    held = next(t for t in draft.graph.initializer if t.name == weight.input[0])
    values = numpy_helper.to_array(held)
    made = to_depth(values, step, zeros)
    held.CopyFrom(numpy_helper.from_array(made, held.name))
    name = draft.unique(f"{x}/depth")
    draft.before(unpack, draft.make("SpaceToDepth", [x], name, blocksize=step))
    unpack.input[0] = name
    size = made.shape[2:]
    write_attributes(conv, {"kernel_shape": [*size], "strides": [1, 1], "pads": pads})


def to_depth(values: np.ndarray, step: int, zeros: int, empty: float = 0) -> np.ndarray:
    """w of v, (O, C, k, k) to (O, step² C, k', k'). zeros: in front of the kernel; empty: theirs"""
    filters, channels, kernel, _ = values.shape
    size = -(-(zeros + kernel) // step)
    wide = np.full((filters, channels, step * size, step * size), empty, values.dtype)
    wide[:, :, zeros : zeros + kernel, zeros : zeros + kernel] = values
    apart = wide.reshape(filters, channels, size, step, size, step).transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(apart.reshape(filters, -1, size, size))


def smaller_steps(
    shape: Sequence[int], strides: Sequence[int], pads: Sequence[int], groups: int
) -> tuple[int, int] | None:
    """(step, zeros in front of the kernel) of a layer that is rearranged where its image and
    dilations allow it; None of one that never is. shape: of its weights (O, C, kh, kw)"""
    if len(shape) != 4 or shape[1] >= FEW or groups != 1 or strides[0] < 2:
        return None
    if len({*strides}) > 1 or shape[2] != shape[3] or pads[0] != pads[1]:
        return None
    return strides[0], -pads[0] % strides[0]
