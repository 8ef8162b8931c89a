"""Convolutions, dense layers and pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite.geometry import pads
from edgecv.graphs.tflite.layers import outputs_first
from edgecv.models.importing.tflite.reader import Reader


def conv(r: Reader, o: Any) -> None:
    """CONV_2D: weights (O, kh, kw, I / groups)."""
    w = r.known(r.inputs[1], "weight")
    groups = r.shape(r.inputs[0])[3] // w.shape[3]
    _convolve(r, o, outputs_first("CONV_2D", w), groups)


def depthwise(r: Reader, o: Any) -> None:
    """DEPTHWISE_CONV_2D: weights (1, kh, kw, O)."""
    w = r.known(r.inputs[1], "weight")
    _convolve(r, o, outputs_first("DEPTHWISE_CONV_2D", w), r.shape(r.inputs[0])[3])


def _convolve(r: Reader, o: Any, w: np.ndarray, groups: int) -> None:
    source = r.inputs[0]
    dilations = [int(o.dilationHFactor), int(o.dilationWFactor)]
    strides = [int(o.strideH), int(o.strideW)]
    around = pads(r.shape(source)[1:3], w.shape[2:], strides, dilations, o.padding)
    inputs = [r.first(source), r.hold(w), *_bias(r)]
    made = r.add(
        "Conv", inputs, group=groups, strides=strides, dilations=dilations, pads=around,
        kernel_shape=list(w.shape[2:]),
    )  # fmt: skip
    r.give(r.fused(made, o), first=True)


def transposed(r: Reader, o: Any) -> None:
    """TRANSPOSE_CONV: the output's shape, weights (O, kh, kw, I), the image, a bias perhaps."""
    source, out = r.inputs[2], [int(n) for n in r.known(r.inputs[0], "output shape")[1:3]]
    w = r.known(r.inputs[1], "weight")
    strides, kernel = [int(o.strideH), int(o.strideW)], w.shape[1:3]
    before, after, more = [], [], []
    for n, size, k, s in zip(r.shape(source)[1:3], out, kernel, strides, strict=True):
        whole = (n - 1) * s + k
        total = max(whole - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
        more.append(max(size - whole, 0))
    held = r.hold(outputs_first("TRANSPOSE_CONV", w).swapaxes(0, 1))  # ONNX: (I, O, kh, kw)
    inputs = [r.first(source), held, *_bias(r, 3)]
    made = r.add(
        "ConvTranspose", inputs, strides=strides, pads=[*before, *after], output_padding=more,
        kernel_shape=list(kernel),
    )  # fmt: skip
    r.give(r.fused(made, o), first=True)


def dense(r: Reader, o: Any) -> None:
    """FULLY_CONNECTED: weights (O, I); what comes in is rows of I numbers."""
    if int(getattr(o, "weightsFormat", 0) or 0):
        r.refuse("its weights are shuffled", "run it with --target tflite")
    w = r.known(r.inputs[1], "weight")
    rows = r.add("Reshape", [r.plain(r.inputs[0]), r.hold([-1, w.shape[1]], np.int64)])
    made = r.add("Gemm", [rows, r.hold(w), *_bias(r)], transB=1)
    made = r.fused(made, o)
    shape = r.shape(r.outputs[0])
    if len(shape) != 2:
        made = r.add("Reshape", [made, r.hold(shape, np.int64)])
    r.give(made, first=False)


def average(r: Reader, o: Any) -> None:
    """AVERAGE_POOL_2D: of the pixels that there are."""
    _pool(r, o, "AveragePool")


def largest(r: Reader, o: Any) -> None:
    """MAX_POOL_2D."""
    _pool(r, o, "MaxPool")


def _pool(r: Reader, o: Any, op: str) -> None:
    source = r.inputs[0]
    kernel, strides = [int(o.filterHeight), int(o.filterWidth)], [int(o.strideH), int(o.strideW)]
    around = pads(r.shape(source)[1:3], kernel, strides, (1, 1), o.padding)
    made = r.add(op, [r.first(source)], kernel_shape=kernel, strides=strides, pads=around)
    r.give(r.fused(made, o), first=True)


def _bias(r: Reader, place: int = 2) -> list[str]:
    values = r.value(r.inputs[place]) if len(r.inputs) > place else None
    return [] if values is None else [r.hold(values)]
