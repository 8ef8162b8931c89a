"""Averages of integers over windows → depthwise convolutions.

    AveragePool(x; k)                =  conv(x; w)             w = 1 / k, one filter a channel
    AveragePool(Q(Pad(x; p)); k)     =  conv(x; w, pads p)

The weights are the integer 1 and their scale is 1 / k: the same sums. ONNX Runtime's kernel for
averages computes every window in floats: with the pad in front, 3x3 over 48 channels takes 390 of
the 4,500 µs of FastestDet, the convolution 21. Microseconds of small networks with a 1x1
convolution in front and behind (one thread of a Xeon with AVX-512 VNNI, ONNX Runtime 1.31):

    channels, image, kernel, stride    average    convolution
    16, 24, 2x2, 2                          34             22
    128, 14, 2x2, 2                         59             28
    256, 14, 3x3, 1                        396             66
    24, 56, 5x5, 2                         401            156
    512, 7, 7x7, 7                          28             32    (stays)

Half a step is rounded to the even one, where the kernel for averages has it as floats fall.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.profile import ONES
from edgecv.backends.onnxruntime.slices import only
from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes
from edgecv.graphs.onnx.index import Index


def averaged(model: Any) -> int:
    """Rewrite such averages of a Q/DQ onnx.ModelProto in place; how many there were."""
    draft, count = Draft(model, "compile"), 0
    for node in draft.nodes("AveragePool"):
        index = Index(draft.graph)
        unpack, pack = index.makers.get(node.input[0]), only(index, node.output[0])
        if [n and n.op_type for n in (unpack, pack)] != ["DequantizeLinear", "QuantizeLinear"]:
            continue
        shape, given = draft.known_shape(node.input[0]), attributes(node)
        out = draft.known_shape(node.output[0])
        if shape is None or out is None or len(shape) != 4 or not _even(given):
            continue
        if out[2:] == (1, 1):  # no gain in one window
            continue
        pads = list(given.get("pads", [0] * 4))
        if not any(pads) and (padded := _pad_in_front(draft, index, unpack)):
            node.input[0], pads = padded
        kernel = given["kernel_shape"]
        _convolve(draft, node, shape[1], kernel)
        write_attributes(
            node,
            {
                "kernel_shape": kernel,
                "strides": given.get("strides", [1, 1]),
                "pads": pads,
                "group": shape[1],
            },
        )
        count += 1
    if count:
        _drop_unread(draft)
    return count


def _even(given: Any) -> bool:
    """Whether every window is divided by the same number."""
    if given.get("auto_pad", "NOTSET") != "NOTSET" or given.get("ceil_mode"):
        return False
    if {*given.get("dilations", [1])} != {1}:
        return False
    return bool(given.get("count_include_pad")) or not any(given.get("pads", []))


def _pad_in_front(draft: Draft, index: Index, unpack: Any) -> tuple[str, list[int]] | None:
    """What a Pad with zeros reads and its pads, where it lies between two DQs of one grid."""
    pack = index.makers.get(unpack.input[0])
    pad = index.makers.get(pack.input[0]) if pack is not None else None
    if pack is None or pad is None or pad.op_type != "Pad":
        return None
    first = index.makers.get(pad.input[0])
    mode = attributes(pad).get("mode", "constant")
    if (
        first is None
        or first.op_type != "DequantizeLinear"
        or mode not in (b"constant", "constant")
    ):
        return None
    grids = [[draft.constant(n) for n in node.input[1:]] for node in (first, pack, unpack)]
    if any(len(grid) != 2 or any(v is None or v.size != 1 for v in grid) for grid in grids):
        return None
    if len({tuple((v.dtype, v.item()) for v in grid if v is not None) for grid in grids}) != 1:
        return None
    held = [draft.constant(n) for n in pad.input[1:] if n]
    if not held or len(held) > 2 or held[0] is None or held[0].shape != (8,):
        return None
    if len(held) == 2 and (held[1] is None or np.any(held[1])):
        return None
    sides = [int(n) for n in held[0]]
    if any(sides[:2] + sides[4:6]) or min(sides) < 0:
        return None
    return pad.input[0], [*sides[2:4], *sides[6:]]


def _convolve(draft: Draft, node: Any, channels: int, kernel: list[int]) -> None:
    """The node is a depthwise convolution by the integer 1 now."""
    name = draft.unique(f"{node.output[0]}/average")
    ones = draft.hold(f"{name}/weight", np.ones((channels, 1, *kernel), np.int8))
    scale = draft.hold(f"{name}/scale", np.float32(1 / np.prod(kernel)))
    zero = draft.hold(f"{name}/zero", np.int8(0))
    draft.before(node, draft.make("DequantizeLinear", [ones, scale, zero], name))
    node.op_type, node.name = "Conv", f"{node.output[0]}{ONES}"
    node.input.append(name)


def _drop_unread(draft: Draft) -> None:
    """Pads, and the Q and DQ behind them, that nothing reads any more."""
    for node in reversed(draft.nodes("Pad", "QuantizeLinear", "DequantizeLinear")):
        if not any(draft.uses(name) for name in node.output):
            draft.remove(node)
    draft.drop_unread()
