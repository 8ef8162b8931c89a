"""The window of a convolution or of a pooling."""

from __future__ import annotations

from typing import Any

from edgecv.backends.c.network import Tensor
from edgecv.errors import UnsupportedError


def window(node: Any) -> dict[str, Any]:
    """What a convolution or pooling says of its window."""
    from onnx import helper

    held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise UnsupportedError(node.name, "pads by itself", "export it again")
    return {
        "kernel": tuple(held.get("kernel_shape", ())), "stride": tuple(held.get("strides", (1, 1))),
        "dilation": tuple(held.get("dilations", (1, 1))),
        "pads": tuple(held.get("pads", (0, 0, 0, 0))), "groups": held.get("group", 1),
        "ceil": held.get("ceil_mode", 0), "whole": held.get("count_include_pad", 0),
    }  # fmt: skip


def outputs(x: Tensor, about: dict[str, Any], channels: int) -> tuple[int, int, int]:
    """The shape of what a window makes of each image."""
    high, wide = sides(x.one, about)
    return x.images * high, wide, channels


def sides(shape: tuple[int, ...], about: dict[str, Any]) -> tuple[int, int]:
    """Height and width of what a window makes of one image."""
    sides = []
    for i in range(2):
        room = shape[i] + about["pads"][i] + about["pads"][i + 2]
        room -= about["dilation"][i] * (about["kernel"][i] - 1) + 1
        stride = about["stride"][i]
        side = (-(-room // stride) if about.get("ceil") else room // stride) + 1
        if about.get("ceil") and (side - 1) * stride >= shape[i] + about["pads"][i]:
            side -= 1  # a window may not begin behind the image
        sides.append(side)
    return sides[0], sides[1]
