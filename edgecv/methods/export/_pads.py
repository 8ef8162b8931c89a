"""Zero padding in front of a convolution becomes the convolution's own.

An engine runs a Pad node as a copy of the whole tensor, and in an int8 network in float, between a
DequantizeLinear and a QuantizeLinear: five of them took 2.5 of 6.3 ms of EfficientNet-Lite0 in int8
on ONNX Runtime. Networks that came from TensorFlow have one before every convolution of stride 2
("SAME" padding is uneven there, which nn.Conv2d cannot say and ONNX can).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def absorb_paddings(model: Any) -> int:
    """Fold Pad nodes of an onnx.ModelProto into the convolutions that read them, in place.

    Only what changes no value: zeros, at the sides of the image, none taken away, and every reader
    a convolution that takes the tensor as its image and states its padding. Returns how many went.
    """
    graph = model.graph
    held = {t.name: t for t in graph.initializer}
    ends = {o.name for o in graph.output}
    gone = 0
    for pad in [n for n in graph.node if n.op_type == "Pad"]:
        sides = _sides(pad, held)
        readers = [n for n in graph.node if pad.output[0] in n.input]
        if sides is None or not readers or pad.output[0] in ends:
            continue
        if not all(_takes(n, pad.output[0]) for n in readers):
            continue
        for conv in readers:
            conv.input[0] = pad.input[0]
            _add(conv, sides)
        graph.node.remove(pad)
        gone += 1
    if gone:
        _drop_unread(graph)
    return gone


def _drop_unread(graph: Any) -> None:
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def _sides(pad: Any, held: dict[str, Any]) -> list[int] | None:
    """Zeros (begin of each spatial axis, then end) that it adds; None if it does anything else."""
    from onnx import numpy_helper

    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    if mode != b"constant" or len(pad.input) < 2 or pad.input[1] not in held:
        return None
    if len(pad.input) > 3 and pad.input[3]:  # axes: no exporter here writes them
        return None
    if len(pad.input) > 2 and pad.input[2]:
        value = held.get(pad.input[2])
        if value is None or np.any(numpy_helper.to_array(value) != 0):
            return None
    pads = numpy_helper.to_array(held[pad.input[1]]).reshape(2, -1)
    if pads.shape[1] < 3 or pads[:, :2].any() or (pads < 0).any():
        return None
    return [int(v) for v in pads[:, 2:].ravel()]


def _takes(node: Any, tensor: str) -> bool:
    """Whether it is a convolution of that image which pads by numbers (or not at all)."""
    if node.op_type != "Conv" or list(node.input).count(tensor) != 1 or node.input[0] != tensor:
        return False
    return all(a.s in (b"NOTSET", b"VALID") for a in node.attribute if a.name == "auto_pad")


def _add(conv: Any, sides: list[int]) -> None:
    import onnx

    own = next((list(a.ints) for a in conv.attribute if a.name == "pads"), [0] * len(sides))
    for attribute in [a for a in conv.attribute if a.name in ("pads", "auto_pad")]:
        conv.attribute.remove(attribute)
    total = [a + b for a, b in zip(own, sides, strict=True)]
    conv.attribute.append(onnx.helper.make_attribute("pads", total))
