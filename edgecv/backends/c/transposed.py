"""Transposed convolutions as convolutions of a spread image.

y = conv(x with s − 1 zeros between its pixels; the kernel turned about, pads (k − 1) d − p), in
integers too (the zero of the input's grid is spread). Dumoulin & Visin, "A guide to convolution
arithmetic for deep learning" (2016), section 4. The zeros are multiplied: right, not fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.linear import Products
from edgecv.backends.c.window import window


class Transposed(Products):
    """ConvTranspose."""

    def _convtranspose(self, node: Any) -> None:
        from onnx import helper

        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        about, x = window(node), self._at(node.input[0])
        weight, packed = self.values.get(node.input[1]), self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")
        held = weight if packed is None else packed[0]
        assert held is not None
        if held.ndim != 4 or x.last or given.get("output_shape"):
            raise self._refused(node, "is no transposed convolution of images")
        kernel, groups = tuple(held.shape[2:]), about["groups"]
        more = tuple(given.get("output_padding") or (0, 0))
        reach = [(k - 1) * d for k, d in zip(kernel, about["dilation"], strict=True)]
        begins, ends = about["pads"][:2], about["pads"][2:]
        pads = (reach[0] - begins[0], reach[1] - begins[1],
                reach[0] - ends[0] + more[0], reach[1] - ends[1] + more[1])  # fmt: skip
        if min(pads[:2]) < 0:
            raise self._refused(node, f"pads {about['pads']} are wider than its kernel")
        weight = None if weight is None else turned_about(weight, groups)
        if packed is not None:
            scales = packed[1]
            scales = np.tile(scales, groups) if 1 < scales.size < held.shape[1] * groups else scales
            packed = (turned_about(packed[0], groups), scales)
        about |= {"kernel": kernel, "stride": (1, 1), "pads": pads}
        plain = self.names[node.input[0]]
        self.names[node.input[0]] = self._spread(node, window(node)["stride"])
        self._product(node, about, weight, packed, (0, 2, 3, 1))
        self.names[node.input[0]] = plain

    def _spread(self, node: Any, strides: tuple[int, int]) -> str:
        """The input with zeros between its pixels."""
        x = self._at(node.input[0])
        if tuple(strides) == (1, 1):
            return x.name
        high, wide, channels = x.one
        high, wide = (high - 1) * strides[0] + 1, (wide - 1) * strides[1] + 1
        shape = (x.images * high, wide, channels)
        zero = self.grids[x.name].zero if x.dtype == "int8" else 0
        name = f"{node.output[0]}/spread"
        self._step(node, "spread", [x.name], shape, x.dtype, name,
                   about={"stride": tuple(strides), "fill": zero})  # fmt: skip
        del self.names[name]
        if x.name in self.grids:
            self.grids[name] = self.grids[x.name]
        return name


def turned_about(weight: np.ndarray, groups: int) -> np.ndarray:
    """(C, O / groups, kh, kw) as a convolution's (O, C / groups, kh, kw)."""
    parts = np.split(weight, groups)
    return np.concatenate([p.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] for p in parts])
