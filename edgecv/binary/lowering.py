"""A standard ONNX graph with convolutions of ±1 → the same graph with kernels that count bits.

    Where(x >= β, 1, −1) → Conv of ±s_f, 0 (+ bias) (→ Add)     Binarize → BinaryConv
    BinaryConv (→ Relu) → Binarize, read by nothing else        BinaryBits: packed through

A filter's weights have one size s_f, which becomes its scale; the sums are integers, so what comes
out are the floats that PyTorch computes, and not a sum of rounded products. Everything else in the
graph stays as it is. What cannot be lowered (a dynamic size, a kernel the library refuses) stays a
float convolution, and is told.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.binary.plain import DOMAIN
from edgecv.binary.reference import Shape, packed
from edgecv.binary.thresholds import thresholds

log = logging.getLogger(__name__)
OPSET = 1
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


def lower(model: Any) -> list[str]:
    """Rewrite an onnx.ModelProto in place; the names of the convolutions that are counted now."""
    return _Lowering(model).run()


def countable(model: Any) -> set[str]:
    """The names of the convolutions that `lower` would take; the model stays as it is."""
    found = _Lowering(model)
    return {
        node.name
        for node in model.graph.node
        if (signs := found.signs(node)) and not isinstance(found.layer(node, signs[0]), str)
    }


class _Lowering:
    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        self.model, self.graph = model, model.graph
        self.values = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
        self.sizes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        self.makers = {o: n for n in self.graph.node for o in n.output}
        self.ends = {o.name for o in self.graph.output}
        self.uses = Counter(i for n in self.graph.node for i in n.input)
        self.bits: dict[tuple[str, bytes], str] = {}
        self.layers: dict[str, Layer] = {}

    def run(self) -> list[str]:
        done = [node.name or node.output[0] for node in list(self.graph.node) if self._conv(node)]
        if done:
            self._sweep()  # comparisons that nothing reads any more still count as readers
            self._chains()
            self._sweep()
            self._order()
            self.model.opset_import.add(domain=DOMAIN, version=OPSET)
        return done

    def _conv(self, node: Any) -> bool:
        """Replace one convolution, with the sum behind it."""
        signs = self.signs(node)
        if signs is None:
            return False
        x, least = signs
        layer = self.layer(node, x)
        if isinstance(layer, str):
            log.warning("%s %s: stays float", node.name or node.output[0], layer)
            return False
        out, add = node.output[0], ""
        behind = self._only_reader(out)
        if behind is not None and behind.op_type == "Add":
            other = next((i for i in behind.input if i != out), "")  # "": it is added to itself
            if other and self.sizes.get(other) == self.sizes.get(out):
                add, out = other, behind.output[0]
                self._drop(behind)
        self._drop(node)
        self._emit(
            "BinaryConv",
            [self._binarized(x, least), *self._weights(out, layer),
             self._hold(out, "scale", layer.scale), self._hold(out, "bias", layer.bias),
             *([add] if add else [])],
            out, layer.shape,
        )  # fmt: skip
        self.layers[out] = layer
        return True

    def signs(self, node: Any) -> tuple[str, np.ndarray] | None:
        """(x, β) where a convolution reads Where(x >= β, 1, −1)."""
        if node.op_type != "Conv" or node.input[1] not in self.values:
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
        border = self.values[least]
        if len(size) != 4 or border.size not in (1, size[1]) or border.dtype != np.float32:
            return None
        if border.size > 1 and list(border.shape[-3:]) != [size[1], 1, 1]:
            return None
        return x, np.broadcast_to(border.reshape(-1), size[1]).astype(np.float32)

    def layer(self, node: Any, x: str) -> Layer | str:
        """The layer, or why it cannot be counted."""
        from onnx import helper

        weight = self.values[node.input[1]]
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size = self.sizes[x]
        if weight.ndim != 4 or size[0] != 1 or min(size) < 1:
            return f"has size {size} and weights {weight.shape}"
        if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            return "pads by itself"
        scale = np.abs(weight).reshape(len(weight), -1).max(1)
        sizes = np.abs(weight)
        unit = scale.reshape(-1, 1, 1, 1)
        if not np.all((sizes == unit) | (sizes == 0)):
            return "has weights of several sizes in one filter"
        if weight[0].size > MOST:
            return f"adds {weight[0].size} products"
        top, left, bottom, right = held.get("pads", [0, 0, 0, 0])
        shape = Shape(
            size[2], size[3], size[1], len(weight), tuple(weight.shape[2:]),
            tuple(held.get("strides", (1, 1))), tuple(held.get("dilations", (1, 1))),
            (top, left, bottom, right), held.get("group", 1),
        )  # fmt: skip
        taps = weight.transpose(0, 2, 3, 1)
        bias = self.values.get(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and bias is None:
            return "has a bias that is no constant"
        return Layer(
            shape, taps > 0, None if sizes.all() else taps != 0, scale.astype(np.float32),
            np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32),
        )  # fmt: skip

    def _binarized(self, x: str, least: np.ndarray) -> str:
        """The bits of x, made once for all that read them."""
        key = x, least.tobytes()
        if key not in self.bits:
            name = self.bits[key] = f"{x}.bits{len(self.bits)}"
            flip = np.zeros(len(least), np.uint8)
            held = [self._hold(name, "least", least), self._hold(name, "flip", flip)]
            self._emit("Binarize", [x, *held], name, None)
        return self.bits[key]

    def _weights(self, out: str, layer: Layer) -> list[str]:
        mask = "" if layer.mask is None else self._hold(out, "mask", packed(layer.mask))
        return [self._hold(out, "weights", packed(layer.ones)), mask]

    def _chains(self) -> None:
        """Binarize nodes that read nothing but a counted layer: its sums are compared instead."""
        for node in [n for n in self.graph.node if n.op_type == "Binarize"]:
            value, relu = node.input[0], False
            maker = self.makers.get(value)
            reader = self._only_reader(value)
            alone = reader is not None and reader.output[0] == node.output[0]
            if maker is not None and maker.op_type == "Relu" and alone:
                value, relu = maker.input[0], True
                maker = self.makers.get(value)
            if maker is None or maker.op_type != "BinaryConv" or len(maker.input) > 5:
                continue
            if value in self.ends or self.uses[value] != 1:
                continue
            layer, least = self.layers[value], self.values[node.input[1]]
            first, flip = thresholds(layer.scale, layer.bias, least, layer.most, relu)
            out, read = node.output[0], list(maker.input[:3])
            for old in (node, maker, *([self.makers[node.input[0]]] if relu else [])):
                self._drop(old)
            held = [self._hold(out, "border", first), self._hold(out, "turned", flip.astype(np.uint8))]
            self._emit("BinaryBits", [*read, *held], out, layer.shape)

    def _only_reader(self, value: str) -> Any:
        """The one node that reads a value, or None."""
        if value in self.ends or self.uses[value] != 1:
            return None
        return next((n for n in self.graph.node if value in n.input), None)

    def _hold(self, of: str, what: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"{of}.{what}"
        self.values[name] = value
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _emit(self, op: str, inputs: list[str], out: str, shape: Shape | None) -> None:
        from onnx import helper

        about = {} if shape is None else {"shape": numbers(shape)}
        node = helper.make_node(op, inputs, [out], name=f"{out}.{op}", domain=DOMAIN, **about)
        self.graph.node.append(node)
        self.makers[out] = self.graph.node[-1]
        self.uses.update(i for i in inputs if i)

    def _drop(self, node: Any) -> None:
        self.uses.subtract(i for i in node.input if i)
        self.graph.node.remove(node)

    def _sweep(self) -> None:
        """Take out what nothing reads any more."""
        while dead := [n for n in self.graph.node
                       if not any(self.uses[o] > 0 or o in self.ends for o in n.output)]:  # fmt: skip
            for node in dead:
                self._drop(node)

    def _order(self) -> None:
        """Put the nodes in an order that runs, and leave out constants that nothing reads."""
        ready = {i.name for i in self.graph.input} | {t.name for t in self.graph.initializer} | {""}
        left, ordered = list(self.graph.node), []
        while left:
            runs = [n for n in left if all(i in ready for i in n.input)]
            if not runs:
                raise ValueError("a circle in the graph")
            ordered += runs
            ready |= {o for n in runs for o in n.output}
            left = [n for n in left if n.output[0] not in ready]
        read = {i for n in ordered for i in n.input}
        held = [t for t in self.graph.initializer if t.name in read]
        nodes = [_copy(n) for n in ordered]
        kept = [_copy(t) for t in held]
        del self.graph.node[:]
        del self.graph.initializer[:]
        del self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(kept)


def numbers(s: Shape) -> list[int]:
    """A shape as the operators' attribute has it."""
    return [s.height, s.width, s.channels, s.filters, *s.kernel, *s.stride, *s.dilation, *s.pads,
            s.groups]  # fmt: skip


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made
