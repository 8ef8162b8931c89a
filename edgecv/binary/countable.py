"""Which convolutions of a graph count bits: Where(x >= β, 1, −1) → Conv, Gemm or MatMul of ±s_f, 0.

A filter's weights have one size s_f, which becomes its scale. A dense layer is a convolution of one
pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.binary.reference import Shape
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import FORWARD, outputs_first

MOST = 65535  # products of one output, as the kernels count them


@dataclass(frozen=True)
class Layer:
    """A convolution that can be counted: its ±1 and 0, and what becomes of the sums."""

    shape: Shape
    ones: np.ndarray  # bool (filters, kh, kw, channels / groups)
    mask: np.ndarray | None  # where a weight is not zero; None: nowhere it is
    scale: np.ndarray
    bias: np.ndarray

    @property
    def most(self) -> np.ndarray:
        """|dot| is no larger, int64 (filters,)."""
        held = np.ones_like(self.ones) if self.mask is None else self.mask
        return held.reshape(len(held), -1).sum(1).astype(np.int64)


def countable(model: Any) -> set[str]:
    """The outputs of the convolutions that `lower` would take; the model stays as it is."""
    found = Signs(model)
    return {
        node.output[0]
        for node in model.graph.node
        if (signs := found.signs(node)) and not isinstance(found.layer(node, signs[0]), str)
    }


class Signs:
    """An onnx.ModelProto as this looks at it.

    values: what it holds, by name; sizes: of its tensors, 0 for what is dynamic
    taken:  first outputs of nodes that operators which count take over
    """

    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        self.graph = model.graph
        self.values = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
        self.sizes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        index = Index(self.graph)
        self.makers, self.readers, self.ends = index.makers, index.readers, index.ends
        self.taken: set[str] = set()

    def signs(self, node: Any) -> tuple[str, np.ndarray] | None:
        """(x, β) where a convolution reads Where(x >= β, 1, −1)."""
        if node.op_type not in FORWARD or node.input[1] not in self.values:
            return None
        where = self.makers.get(node.input[0])
        if where is None or where.op_type != "Where":
            return None
        condition = self.makers.get(where.input[0])
        one, minus = (self.values.get(name) for name in where.input[1:])
        if condition is None or condition.op_type != "GreaterOrEqual" or one is None:
            return None
        x, least = condition.input
        if minus is None or least not in self.values or x in self.values:
            return None
        if not (np.all(one == 1) and np.all(minus == -1) and one.size == minus.size == 1):
            return None
        size = self.sizes.get(x, [])
        if len(size) != (4 if node.op_type == "Conv" else 2):
            return None
        border = self.by_channel(least, size[1], len(size))
        return None if border is None else (x, border)

    def layer(self, node: Any, x: str) -> Layer | str:
        """The layer, or why it cannot be counted."""
        from onnx import helper

        weight = self.values[node.input[1]]
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size = [*self.sizes[x], 1, 1][:4]
        if node.op_type != "Conv":
            if weight.ndim != 2 or held.get("transA") or {held.get("alpha", 1.0)} != {1.0}:
                return "is a product of another kind"
            weight = outputs_first(node, weight)[:, :, None, None]
        if weight.ndim != 4 or size[0] != 1 or min(size) < 1:
            return f"has size {size} and weights {weight.shape}"
        if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            return "pads by itself"
        scale = np.abs(weight).reshape(len(weight), -1).max(1)
        sizes = np.abs(weight)
        unit = scale.reshape(-1, 1, 1, 1)
        if not np.all((sizes == unit) | (sizes == 0)):
            return "has weights of several sizes in one filter"
        if -(-weight.shape[1] // 8) * 8 * weight[0, 0].size > MOST:
            return f"adds {weight[0].size} products"
        top, left, bottom, right = held.get("pads", [0, 0, 0, 0])
        shape = Shape(
            size[2], size[3], size[1], len(weight), tuple(weight.shape[2:]),
            tuple(held.get("strides", (1, 1))), tuple(held.get("dilations", (1, 1))),
            (top, left, bottom, right), held.get("group", 1),
        )  # fmt: skip
        taps = weight.transpose(0, 2, 3, 1)
        bias = self.values.get(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and (bias is None or held.get("beta", 1.0) != 1.0):
            return "has a bias that is no constant"
        return Layer(
            shape, taps > 0, None if sizes.all() else taps != 0, scale.astype(np.float32),
            np.zeros(len(weight), np.float32) if bias is None else
            np.broadcast_to(bias.astype(np.float32).reshape(-1), len(weight)),
        )  # fmt: skip

    def halved(self, value: str) -> tuple[str, int, int, int, int] | None:
        """(x, its height, width and channels, the value's channels) where a value is x's 2x2 means
        with the channels over and over."""
        from onnx import helper

        node = self.makers.get(value)
        if node is not None and node.op_type == "Concat" and len({*node.input}) == 1:
            axis = next(a.i for a in node.attribute if a.name == "axis")
            node = self.makers.get(node.input[0]) if axis in (1, -3) else None
        if node is None or node.op_type != "AveragePool":
            return None
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size, x = self.sizes.get(value), node.input[0]
        inner = self.sizes.get(x)
        if size is None or inner is None or held.get("strides") != [2, 2]:
            return None
        # of odd sides the last window holds what there is: the canonical form says it by end pads
        sides = [0, 0, inner[2] % 2, inner[3] % 2]
        if held["kernel_shape"] != [2, 2] or held.get("pads", [0] * 4) != sides:
            return None
        whole = not any(sides) or not held.get("count_include_pad", 0)
        return (x, inner[2], inner[3], inner[1], size[1]) if whole else None

    def by_channel(self, name: str, channels: int, rank: int) -> np.ndarray | None:
        """A constant of one value for all channels or for each, float32 (channels,)."""
        value = self.values.get(name)
        if value is None or value.dtype != np.float32 or value.size not in (1, channels):
            return None
        behind = [1] * (rank - 2)
        if value.size > 1 and list(value.shape[-rank + 1 :]) != [channels, *behind]:
            return None
        return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), channels))

    def only_reader(self, value: str) -> Any:
        """The one node that reads a value and is not taken, or None."""
        found = self.readers[value]
        if value in self.ends or len(found) != 1 or found[0].output[0] in self.taken:
            return None
        return found[0]
