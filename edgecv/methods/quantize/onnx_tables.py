"""What an engine looks up has a scale for every channel in front, and none inside.

    Conv ─ Q ─ DQ ─┬─ Sigmoid ─ Q ─ DQ ─┐              Conv ─ Q_c ─ DQ_c ─┬─ Sigmoid ─┐
                   └────────────────── Mul ─ Q ─ DQ  →                    └───────── Mul ─ Q ─ DQ

A function of one number of 8 bits is a table (`backends/onnxruntime/tables.py`); with one for each
channel, each has a grid of its own at no cost. Its low end lies where the function is flat: what a
SiLU reads below -8 it makes 0 of, near enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.graphs.onnx.epilogues import Epilogue, epilogues, with_product
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import layers

# Below, each of them lies between its value there (at most 0.003 from 0) and 0.
FLAT = {"silu": -8.0, "hardswish": -3.0, "mish": -8.0, "gelu": -5.0}
Extremes = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, np.ndarray]]]


def looked_up(model: Any, kinds: Collection[str], kept: Collection[str]) -> list[Epilogue]:
    """The activations of a float onnx.ModelProto that read convolutions, each with a product by
    constants behind it (`onnx_even.py`).

    kinds: which the engine looks up (`Facts.tables`). kept: names of nodes that stay float
    """
    if not kinds:
        return []
    index = Index(model.graph)
    makers = {n.output[0]: n for n in layers(model) if n.op_type == "Conv" and n.name not in kept}
    found = []
    for one in epilogues(model):
        nodes = with_product(index, one)
        inside = {n.output[0] for n in nodes}
        alone = all(n.output[0] in inside for n in index.readers[one.input])
        alone = alone and one.input not in index.ends
        whole = not any(n.name in kept for n in nodes)
        if one.kind in kinds and one.input in makers and alone and whole:
            found.append(replace(one, nodes=nodes))
    return found


def by_channel(quantized: Any, found: Sequence[Epilogue], extremes: Extremes) -> None:
    """Give each pair in front of those a scale and a zero point for every channel; in place.

    extremes: smallest and largest value by channel of tensors
    """
    from onnx import numpy_helper

    if not found:
        return
    index = Index(quantized.graph)
    seen = extremes([one.input for one in found])
    for one in found:
        packs = [n for n in index.readers[one.input] if n.op_type == "QuantizeLinear"]
        if len(packs) != 1:
            continue
        (pack,) = packs
        kind = np.dtype(numpy_helper.to_array(index.held[pack.input[2]]).dtype)
        low, high = seen[one.input]
        scale, zero = _grid(np.maximum(low, FLAT[one.kind]), high, kind)
        names = [f"{one.input}/channels/{what}" for what in ("scale", "zero_point")]
        for name, values in zip(names, (scale, zero), strict=True):
            quantized.graph.initializer.append(numpy_helper.from_array(values, name))
        for node in (pack, *index.readers[pack.output[0]]):
            node.input[1], node.input[2] = names
            _along_channels(node)
    read = {n for node in quantized.graph.node for n in node.input}
    for tensor in [t for t in quantized.graph.initializer if t.name not in read]:
        quantized.graph.initializer.remove(tensor)


def _grid(low: np.ndarray, high: np.ndarray, kind: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) scales, float32, and zero points; 0 is on every grid."""
    ends = np.iinfo(kind)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    wide = np.where(high - low < 1e-6, 1.0, high - low)  # a channel that holds nothing
    scale = (wide / (ends.max - ends.min)).astype(np.float32)
    return scale, np.clip(np.rint(ends.min - low / scale), ends.min, ends.max).astype(kind)


def _along_channels(node: Any) -> None:
    from onnx import helper

    for attribute in [a for a in node.attribute if a.name == "axis"]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("axis", 1))
