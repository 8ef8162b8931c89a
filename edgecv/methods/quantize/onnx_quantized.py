"""Where a Q/DQ graph keeps each layer's integers, scales and bias; writing it as a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.graphs.onnx.canonical.stored import is_quantized
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import transposed
from edgecv.methods.export.onnx import FILE


class Place:
    """Where a Q/DQ graph keeps one layer's integers, scales and bias, output channel first.

    turned: whether the node holds its weight as (inputs, outputs)
    """

    def __init__(
        self, held: dict[str, Any], weight: Any, bias: Any, source: Any, turned: bool
    ) -> None:
        from onnx import numpy_helper

        self._held, self._weight, self._bias, self._turned = held, weight, bias, turned
        self.scale = np.atleast_1d(numpy_helper.to_array(held[weight.input[1]])).astype(np.float64)
        # None: the bias stays float (TensorRT)
        self.input_scale: float | None = None
        if not isinstance(bias, str):
            self.input_scale = float(numpy_helper.to_array(held[source.input[1]]))

    def integers(self) -> np.ndarray:
        """The weight's integers."""
        held = self._get(self._weight.input[0])
        return held.T if self._turned else held

    def bias(self) -> np.ndarray:
        """The bias as real numbers, float64."""
        if isinstance(self._bias, str):
            return self._get(self._bias).astype(np.float64)
        q, scale = (self._get(n) for n in self._bias.input[:2])
        return q.astype(np.float64) * scale

    def _get(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return np.array(numpy_helper.to_array(self._held[name]))

    def write(self, q: np.ndarray, s: np.ndarray, bias: np.ndarray) -> None:
        self._put(self._weight.input[0], (q.T if self._turned else q).astype(np.int8))
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


class Quantized:
    """A Q/DQ graph by node name and by what makes each tensor."""

    def __init__(self, model: Any) -> None:
        index = Index(model.graph)
        self._held, self._makers = index.held, index.makers
        self._nodes = {n.name: n for n in model.graph.node}

    def layer(self, node: Any) -> Place | None:
        """Where that node of the float graph is kept; None where its weights stayed float."""
        twin = self._nodes.get(node.name)
        if twin is None:
            return None
        source, weight, bias = (self._makers.get(n) for n in twin.input[:3])
        if weight is None or weight.op_type != "DequantizeLinear" or source is None:
            return None
        bias = bias if bias is not None else twin.input[2]
        return Place(self._held, weight, bias, source, transposed(node))

    def activations(self) -> dict[str, tuple[float, np.ndarray]]:
        """Scale and zero point (a scalar array of the integers' type) by the tensor's name."""
        from onnx import numpy_helper

        return {
            node.input[0]: (
                float(numpy_helper.to_array(self._held[node.input[1]])),
                np.array(numpy_helper.to_array(self._held[node.input[2]])),
            )
            for node in self._nodes.values()
            if node.op_type == "QuantizeLinear"
        }


def saved(graph: Graph, made: Any, out: Path, facts: dict[str, Any]) -> Graph:
    """Write out/model.onnx and out/graph.json of a float graph's integer form.

    made: an onnx.ModelProto, stripped and checked. facts: besides those of the float graph
    Raises ModelError: no layer of it computes in integers.
    """
    if not is_quantized(made):
        raise ModelError("quantize", "the network has no layer that has int8", "ship it in fp32")
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    path.write_bytes(made.SerializeToString(deterministic=True))
    ops = dict(sorted(Counter(n.op_type for n in made.graph.node).items()))
    result = Graph(
        path, "onnx", "int8", graph.inputs, graph.outputs, {**graph.facts, "ops": ops, **facts}
    )
    result.save_facts()
    return result
