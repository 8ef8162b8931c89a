"""A float layer of a Q/DQ graph in int8 as its neighbours are, to be timed beside the float one.

    s = (hi - lo) / 255,  z = round(-lo / s);   s_w = max |w_c| / 127;   s_b = s s_w

Ranges are those of one input: the time of an integer kernel does not depend on them, so that this
tells milliseconds and not accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.diagnosis.why.onnx_fusing import activation, from_zero
from edgecv.diagnosis.why.onnx_mend import copied
from edgecv.graphs.onnx.layers import output_axis

if TYPE_CHECKING:
    from edgecv.diagnosis.why.onnx_view import OnnxView


def in_integers(
    view: OnnxView, nodes: Sequence[Any], feeds: Mapping[str, np.ndarray]
) -> Any | None:
    """The view's model with those products in int8; None when none of them can be."""
    able = [n for n in nodes if view.constant(n.input[1]) is not None]
    if not able:
        return None
    wanted = {t for n in able for t in (n.input[0], activation(view, n).output[0])}
    ranges = _ranges(view.model, wanted, feeds)
    work = _Work(view, ranges)
    for node in able:
        work.put(node.output[0])
    return work.model


class _Work:
    """A copy of the view's model, being changed."""

    def __init__(self, view: OnnxView, ranges: Mapping[str, tuple[float, float]]) -> None:
        self.view, self.ranges = view, ranges
        self.model = copied(view.model)
        del self.model.graph.value_info[:]
        self._count = 0

    def put(self, output: str) -> None:
        """Give the product that makes `output` a quantized input, weight, bias and output."""
        node = next(n for n in self.model.graph.node if output in n.output)
        channels = output_axis(node)
        if not self.view.grid(node.input[0]):
            node.input[0] = self._on_grid(node, node.input[0])
        scale = self._scale(node.input[0])
        if not self.view.grid(node.input[1]):
            node.input[1] = self._weight(node, node.input[1], channels)
        if len(node.input) > 2 and node.input[2] in self.view.held:
            node.input[2] = self._bias(node, scale)
        shipped = next(n for n in self.view.model.graph.node if output in n.output)
        last = activation(self.view, shipped)
        made = last.output[0]
        readers = self.view.readers.get(made, [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            self._split_output(made)
        elif last.op_type == "Relu" and not from_zero(self.view, readers[0]):
            self._from_zero(made, readers[0].output[0])

    def _on_grid(self, node: Any, tensor: str) -> str:
        """Q and DQ in front of a node; the tensor that comes out."""
        name = self._name()
        made = self._pair(tensor, f"{name}_grid", name)
        place = list(self.model.graph.node).index(node)
        for i, new in enumerate(made):
            self.model.graph.node.insert(place + i, new)
        return f"{name}_grid"

    def _split_output(self, tensor: str) -> None:
        """Q and DQ behind whatever makes the tensor; all that read it read it from there."""
        maker = next(n for n in self.model.graph.node if tensor in n.output)
        name = self._name()
        maker.output[0] = f"{name}_raw"
        self.ranges = {**self.ranges, f"{name}_raw": self.ranges[tensor]}
        place = list(self.model.graph.node).index(maker) + 1
        for i, new in enumerate(self._pair(f"{name}_raw", tensor, name)):
            self.model.graph.node.insert(place + i, new)

    def _from_zero(self, tensor: str, quantized: str) -> None:
        """A grid that begins at 0 in place of the one that a tensor was put on."""
        name, high = self._name(), self.ranges[tensor][1]
        scale = self._held(f"{name}_scale", np.float32(max(high, 1e-6) / 255))
        zero = self._held(f"{name}_zero", np.uint8(0))
        for node in self.model.graph.node:
            if quantized in node.output or (
                node.op_type == "DequantizeLinear" and node.input[0] == quantized
            ):
                node.input[1], node.input[2] = scale, zero

    def _pair(self, tensor: str, out: str, name: str) -> tuple[Any, Any]:
        from onnx import helper

        low, high = self.ranges[tensor]
        scale = np.float32(max(high - low, 1e-6) / 255)
        zero = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
        grid = [self._held(f"{name}_scale", scale), self._held(f"{name}_zero", zero)]
        return (
            helper.make_node("QuantizeLinear", [tensor, *grid], [f"{name}_q"], name=f"{name}_Q"),
            helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [out], name=f"{name}_DQ"),
        )

    def _weight(self, node: Any, tensor: str, axis: int) -> str:
        values = _values(self.view.constant(tensor)).astype(np.float32)
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.maximum(np.abs(values).max(others), 1e-12).astype(np.float32) / np.float32(127)
        side = [1] * values.ndim
        side[axis] = -1
        q = np.clip(np.rint(values / scale.reshape(side)), -127, 127).astype(np.int8)
        # after the weight, by which the engine's profile knows the layer again
        return self._constant(node, tensor, q, scale, np.zeros(len(scale), np.int8), axis)

    def _bias(self, node: Any, scale: float) -> str:
        weights = self._maker(node.input[1])
        steps = _values(self._initializer(weights.input[1])).astype(np.float32).reshape(-1)
        bias = _values(self.view.held[node.input[2]])
        step = np.broadcast_to(steps * np.float32(scale), bias.shape).astype(np.float32)
        q = np.clip(np.rint(bias / step), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        zero = np.zeros(len(step), np.int32)
        return self._constant(node, node.input[2], q, step, zero, 0)

    def _constant(
        self, node: Any, tensor: str, q: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int
    ) -> str:
        from onnx import helper

        name, base = self._name(), f"{tensor}_quantized"
        inputs = [
            self._held(base, q),
            self._held(f"{name}_s", scale),
            self._held(f"{name}_z", zero),
        ]
        new = helper.make_node(
            "DequantizeLinear", inputs, [f"{name}_c"], name=f"{name}_DQ", axis=axis
        )
        self.model.graph.node.insert(list(self.model.graph.node).index(node), new)
        return f"{name}_c"

    def _scale(self, tensor: str) -> float:
        maker = self._maker(tensor)
        return float(_values(self._initializer(maker.input[1])).reshape(-1)[0])

    def _maker(self, tensor: str) -> Any:
        return next(n for n in self.model.graph.node if tensor in n.output)

    def _initializer(self, name: str) -> Any:
        return next(t for t in self.model.graph.initializer if t.name == name)

    def _held(self, name: str, array: Any) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"edgecv_why_{self._count}"


def _values(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _ranges(
    model: Any, tensors: Iterable[str], feeds: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each tensor for one input, 0 included."""
    found = values(model, tensors, feeds)
    return {n: (min(0.0, float(a.min())), max(0.0, float(a.max()))) for n, a in found.items()}


def values(
    model: Any, tensors: Iterable[str], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Those tensors for one input, by ONNX Runtime with its optimiser off."""
    import onnxruntime as ort
    from onnx import helper

    from edgecv.backends.onnxruntime.run import counting, register

    exposed = copied(model)
    known = {o.name for o in exposed.graph.output}
    asked = sorted(set(tensors) - set(feeds))
    new = [helper.make_empty_tensor_value_info(n) for n in asked if n not in known]
    exposed.graph.output.extend(new)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content, kernels = counting(exposed.SerializeToString())
    register(options, kernels)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = dict(zip(asked, session.run(asked, dict(feeds)), strict=True))
    return found | {n: np.asarray(feeds[n]) for n in tensors if n in feeds}
