"""Weights and biases of a Q/DQ graph, written anew: q, s and b' = b + (w − s q) E[x].

ONNX Runtime's quantizer rounds each weight to the nearest integer; here the float graph is run on
the samples for what each layer's inputs look like (`rounding.Moments`), and integers, scales and
biases are replaced. The bias takes out what rounding adds to a layer's mean: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, section 4.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.stem import smaller_steps, to_depth
from edgecv.cores import ahead
from edgecv.graphs.onnx.constants import initializers
from edgecv.graphs.onnx.geometry import geometry, groups
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import layers, outputs_first, rows_of
from edgecv.methods.quantize.layer_rounding import Settled, settle_layer
from edgecv.methods.quantize.onnx_quantized import Place, Quantized
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.rounding import Moments
from edgecv.methods.quantize.vnni_saturation import fitted, neighbours


def own_biases(model: Any) -> Any:
    """A copy in which every layer with constant weights has a bias of its own, zeros where none."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {t.name: t for t in copy.graph.initializer}
    for node in layers(copy):
        rows = rows_of(node, numpy_helper.to_array(held[node.input[1]]))
        bias = np.zeros(len(rows), np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = bias + numpy_helper.to_array(held[node.input[2]])
        del node.input[2:]
        node.input.append(f"{node.output[0]}/bias")
        copy.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
    used = {n for node in copy.graph.node for n in node.input}
    kept = [t for t in copy.graph.initializer if t.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def settle(
    model: Any, quantized: Any, moments: dict[str, Moments], limit: int, options: Options
) -> None:
    """Replace the integers, scales and biases of the quantized graph's layers, in place.

    limit: the largest integer that the quantizer gave a weight. Layers that stayed float, and
    weights that two layers share, keep what they have.
    """
    floats = initializers(model.graph)
    graph = Quantized(quantized)
    uses = Index(model.graph).uses
    found = ((node, moments.get(node.output[0]), graph.layer(node)) for node in layers(model))
    every = [
        (node, seen, place)
        for node, seen, place in found
        if place is not None and seen is not None and uses[node.input[1]] == 1
    ]

    def settled(one: tuple[Any, Moments, Place]) -> Settled:
        node, seen, place = one
        w, bias = floats[node.input[1]], floats[node.input[2]]
        rows = np.ascontiguousarray(outputs_first(node, w))
        pairs = _pairs(node, floats)
        return settle_layer(rows, bias, seen, place.scale, place.input_scale, limit, options, pairs)

    for (_, _, place), made in zip(every, ahead(settled, every), strict=True):
        place.write(made.q, made.s, made.bias)


def rows_and_pairs(model: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each layer's float weight as (O, K), and which of K an x86 without VNNI adds in 16 bits."""
    floats = initializers(model.graph)
    return {
        node.input[1]: (rows_of(node, floats[node.input[1]]), _pairs(node, floats))
        for node in layers(model)
    }


def fit(model: Any, quantized: Any) -> None:
    """Bring the integers of the quantized graph's layers, in place, to where no pair saturates."""
    floats = initializers(model.graph)
    graph = Quantized(quantized)
    for node in layers(model):
        if (place := graph.layer(node)) is not None:
            q = place.integers().astype(int)
            rows = q.reshape(len(q), -1)
            made = fitted(rows, _pairs(node, floats))
            if (made != rows).any():
                place.write(made.reshape(q.shape), place.scale, place.bias())


def _pairs(node: Any, floats: dict[str, np.ndarray]) -> np.ndarray:
    """Neighbours in the weight's own order, and in that of a first layer rearranged for ONNX
    Runtime."""
    shape = outputs_first(node, floats[node.input[1]]).shape
    pairs = neighbours(shape, groups(node))
    if node.op_type != "Conv":
        return pairs
    strides, _, pads, count = geometry(node)
    found = smaller_steps(shape, strides, pads, count)
    if found is None:
        return pairs
    at = np.arange(np.prod(shape[1:])).reshape(1, *shape[1:])
    moved = to_depth(at, *found, empty=-1)
    others = moved.ravel()[neighbours(moved.shape)]
    return np.concatenate([pairs, others[(others >= 0).all(1)]])
