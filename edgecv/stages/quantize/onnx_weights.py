"""Weights and biases of a Q/DQ graph, written anew: q, s and b' = b + (w − s q) E[x].

ONNX Runtime's quantizer rounds each weight to the nearest integer; here the float graph is run on
the samples for what each layer's inputs look like (`rounding.Moments`), and integers, scales and
biases are replaced. The bias takes out what rounding adds to a layer's mean: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, section 4.2).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgecv.stages.quantize.onnx_layers import geometry, layers, rows_of, transposed
from edgecv.stages.quantize.onnx_ranges import layer_inputs
from edgecv.stages.quantize.options import Options
from edgecv.stages.quantize.rounding import Moments, columns
from edgecv.stages.quantize.settling import settle_layer


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


def measure_moments(model: Any, samples: np.ndarray) -> dict[str, Moments]:
    """What each layer multiplies with its weights over the samples, by the layer's output."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    every = list(layers(model))
    found = {node.output[0]: Moments() for node in every}
    for inputs in layer_inputs(model, [n.input[0] for n in every], samples):
        for node in every:
            x = inputs[node.input[0]]
            if node.op_type == "Gemm":
                x = x.reshape(1, -1, 1)
            else:
                x = columns(x[0], shapes[node.input[1]][2:], *geometry(node))
            found[node.output[0]].add(x, len(samples))
    return found


def settle(
    model: Any, quantized: Any, moments: dict[str, Moments], limit: int, options: Options
) -> None:
    """Replace the integers, scales and biases of the quantized graph's layers, in place.

    limit: the largest integer that the quantizer gave a weight. Layers that stayed float, and
    weights that two layers share, keep what they have.
    """
    from onnx import numpy_helper

    floats = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    graph = _Quantized(quantized)
    uses = Counter(n for node in model.graph.node for n in node.input)
    for node in layers(model):
        seen, place = moments.get(node.output[0]), graph.layer(node)
        if place is None or seen is None or uses[node.input[1]] > 1:
            continue
        w, bias = floats[node.input[1]], floats[node.input[2]]
        turned = transposed(node)
        rows = np.ascontiguousarray(w.T if turned else w)
        found = settle_layer(rows, bias, seen, place.scale, place.input_scale, limit, options)
        place.write(found.q.T if turned else found.q, found.s, found.bias)


class _Place:
    """Where a Q/DQ graph keeps one layer's integers, scales and bias."""

    def __init__(self, held: dict[str, Any], weight: Any, bias: Any, source: Any) -> None:
        from onnx import numpy_helper

        self._held, self._weight, self._bias = held, weight, bias
        self.scale = np.atleast_1d(numpy_helper.to_array(held[weight.input[1]])).astype(np.float64)
        # None: the bias stays float (TensorRT)
        self.input_scale: float | None = None
        if not isinstance(bias, str):
            self.input_scale = float(numpy_helper.to_array(held[source.input[1]]))

    def write(self, q: np.ndarray, s: np.ndarray, bias: np.ndarray) -> None:
        self._put(self._weight.input[0], q.astype(np.int8))
        self._put(self._weight.input[1], s.astype(np.float32))
        if isinstance(self._bias, str):
            self._put(self._bias, bias.astype(np.float32))
            return
        scale = (np.float32(self.input_scale) * s.astype(np.float32)).astype(np.float32)
        self._put(self._bias.input[0], np.rint(bias / scale.astype(np.float64)).astype(np.int32))
        self._put(self._bias.input[1], scale)

    def _put(self, name: str, values: np.ndarray) -> None:
        from onnx import numpy_helper

        tensor = self._held[name]
        tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), name))


class _Quantized:
    """A Q/DQ graph by node name and by what makes each tensor."""

    def __init__(self, model: Any) -> None:
        self._held = {t.name: t for t in model.graph.initializer}
        self._nodes = {n.name: n for n in model.graph.node}
        self._makers = {o: n for n in model.graph.node for o in n.output}

    def layer(self, node: Any) -> _Place | None:
        """Where that node of the float graph is kept; None where its weights stayed float."""
        twin = self._nodes.get(node.name)
        if twin is None:
            return None
        source, weight, bias = (self._makers.get(n) for n in twin.input[:3])
        if weight is None or weight.op_type != "DequantizeLinear" or source is None:
            return None
        return _Place(self._held, weight, bias if bias is not None else twin.input[2], source)
