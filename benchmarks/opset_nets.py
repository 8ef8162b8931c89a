"""One small .onnx network for each family of operators, as opsets 7 to 26 have it.

    make("pad", 9) -> onnx.ModelProto: "x" (1, 4, 8, 8) float32 in, "y" (1, ...) out, IR of its time

What an opset says in attributes and a later one in inputs is written as that opset has it
(onnx/docs/Changelog.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4, 8, 8)
OPSETS = range(7, 27)
# Opset -> the IR that exporters of its time wrote.
IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8}


class Net:
    """A graph under construction. Each method adds nodes and returns the tensor they make."""

    def __init__(self, opset: int, seed: int = 0) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self.rng = np.random.default_rng(seed)

    def add(self, op: str, *inputs: str, **given: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **given))
        return name

    def several(self, op: str, count: int, *inputs: str, **given: Any) -> list[str]:
        names = [f"{op.lower()}{len(self.nodes)}.{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), names, names[0], **given))
        return names

    def hold(self, values: Any, kind: Any = np.float32) -> str:
        name = f"held{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.hold(self.rng.normal(size=shape) * scale)

    def ints(self, *values: int) -> str:
        return self.hold(values, np.int64)

    # what the opsets say differently

    def axes(self, op: str, x: str, axes: Sequence[int], since: int, **given: Any) -> str:
        """An operator whose axes are an attribute before that opset and an input from it on."""
        if self.opset >= since:
            return self.add(op, x, self.ints(*axes), **given)
        return self.add(op, x, axes=list(axes), **given)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        if self.opset < 10:
            return self.add("Slice", x, axes=[axis], starts=[start], ends=[end])
        return self.add("Slice", x, *(self.ints(v) for v in (start, end, axis, step)))

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if self.opset >= 13:
            return self.several("Split", len(sizes), x, self.ints(*sizes), axis=axis)
        return self.several("Split", len(sizes), x, axis=axis, split=list(sizes))

    def sum(self, first: str, *others: str) -> str:
        """Tensors of several shapes: Sum stretches none before opset 8."""
        if self.opset >= 8:
            return self.add("Sum", first, *others)
        for other in others:
            first = self.add("Add", first, other)
        return first

    def pad(self, x: str, pads: Sequence[int], mode: str, value: float = 0) -> str:
        if self.opset >= 11:
            return self.add("Pad", x, self.ints(*pads), self.hold(value), mode=mode)
        return self.add("Pad", x, pads=list(pads), mode=mode, value=float(value))

    def clip(self, x: str, low: float, high: float) -> str:
        if self.opset >= 11:
            return self.add("Clip", x, self.hold(low), self.hold(high))
        return self.add("Clip", x, min=low, max=high)

    def grow(self, x: str, mode: str, scale: float) -> str:
        """Both sides by that factor: Upsample, Resize-10, Resize."""
        scales = np.array([1, 1, scale, scale], np.float32)
        if self.opset < 9:
            return self.add("Upsample", x, mode=mode, scales=scales.tolist())
        if self.opset < 11:
            op = "Upsample" if self.opset == 9 else "Resize"
            return self.add(op, x, self.hold(scales), mode=mode)
        how = {
            "coordinate_transformation_mode": "asymmetric" if mode == "nearest" else "half_pixel"
        }
        if mode == "nearest":
            how["nearest_mode"] = "floor"
        roi = "" if self.opset >= 13 else self.hold([])  # no input may be left out before
        return self.add("Resize", x, roi, self.hold(scales), mode=mode, **how)

    def model(self, y: str) -> Any:
        """The whole file, y its output "y"."""
        self.nodes.append(helper.make_node("Add", [y, self.hold(0.25)], ["y"], "end"))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
        if self.opset < 9:  # IR 3: weights are inputs
            inputs += [
                helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.held
            ]
        ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "g", inputs, ends, self.held)
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(graph, opset_imports=opsets)
        made.ir_version = IR.get(self.opset, max(8, helper.find_min_ir_version_for(opsets)))
        return made


FAMILIES: dict[str, tuple[int, Callable[[Net], str]]] = {}


def family(name: str, since: int = 7) -> Callable[[Callable[[Net], str]], Callable[[Net], str]]:
    """Registers a builder of that family, which exists from that opset on."""

    def taken(builder: Callable[[Net], str]) -> Callable[[Net], str]:
        FAMILIES[name] = (since, builder)
        return builder

    return taken


def make(name: str, opset: int) -> Any:
    net = Net(opset)
    return net.model(FAMILIES[name][1](net))


def cases() -> list[tuple[str, int]]:
    """Every family at every opset that has it."""
    return [(name, n) for name, (since, _) in FAMILIES.items() for n in OPSETS if n >= since]


@family("convolutions")
def _convolutions(n: Net) -> str:
    x = n.add("Conv", "x", n.normal(8, 4, 3, 3), n.normal(8), auto_pad="SAME_UPPER", strides=[2, 2])
    x = n.add("BatchNormalization", x, n.normal(8), n.normal(8), n.normal(8),
              n.hold(n.rng.uniform(0.5, 2, 8)), epsilon=1e-3)  # fmt: skip
    x = n.add("Conv", x, n.normal(8, 1, 3, 3), pads=[1, 1, 1, 1], group=8)
    x = n.add("ConvTranspose", x, n.normal(8, 2, 3, 3), n.normal(4), group=2, strides=[2, 2],
              pads=[1, 1, 1, 1], output_padding=[1, 1])  # fmt: skip
    return n.add("Conv", x, n.normal(4, 4, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2])


@family("pools")
def _pools(n: Net) -> str:
    a = n.add("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    b = n.add("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1)
    c = n.add("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")
    d = n.add("LpPool", "x", kernel_shape=[2, 2], strides=[2, 2], p=2)
    x = n.add("Sum", a, b, c, d)
    more = {"ceil_mode": 1} if n.opset >= 10 else {}
    e = n.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **more)
    return n.add("Add", n.add("GlobalAveragePool", e), n.add("GlobalMaxPool", e))


@family("resize, nearest")
def _nearest(n: Net) -> str:
    x = n.grow("x", "nearest", 2)
    return x if n.opset < 10 else n.grow(x, "nearest", 0.25)


@family("resize, linear")
def _linear(n: Net) -> str:
    x = n.grow("x", "linear", 2)
    return x if n.opset < 10 else n.grow(x, "linear", 0.25)


@family("pad")
def _pad(n: Net) -> str:
    x = n.pad("x", [0, 0, 1, 2, 0, 0, 0, 1], "constant", 0.5)
    return n.pad(n.pad(x, [0, 0, 2, 1, 0, 0, 1, 1], "reflect"), [0, 0, 1, 0, 0, 0, 0, 3], "edge")


@family("reduce")
def _reduce(n: Net) -> str:
    since = 18
    a = n.axes("ReduceMean", "x", [2, 3], since, keepdims=1)
    b = n.axes("ReduceMax", "x", [2, 3], since, keepdims=1)
    c = n.axes("ReduceSum", "x", [3], 13, keepdims=1)
    d = n.axes("ReduceMin", c, [2], since, keepdims=1)
    e = n.axes("ReduceL2", "x", [1], since, keepdims=0)
    f = n.axes("ReduceProd", n.axes("ReduceLogSumExp", "x", [2], since, keepdims=1), [3], since)
    g = n.axes("Unsqueeze", e, [1], 13)
    return n.sum(n.sum(a, b, d, f), g)


@family("norms")
def _norms(n: Net) -> str:
    x = n.add("BatchNormalization", "x", n.normal(4), n.normal(4), n.normal(4),
              n.hold(n.rng.uniform(0.5, 2, 4)))  # fmt: skip
    x = n.add("LRN", x, size=3, alpha=1e-3, beta=0.75, bias=1.0)
    return n.add("LpNormalization", x, axis=1, p=2)


@family("instance norm")
def _instance_norm(n: Net) -> str:
    return n.add("InstanceNormalization", "x", n.normal(4), n.normal(4), epsilon=1e-3)


@family("layer norm", 17)
def _layer_norm(n: Net) -> str:
    x = n.add("LayerNormalization", "x", n.normal(8), n.normal(8), axis=-1)
    if n.opset >= 21:
        x = n.add("GroupNormalization", x, n.normal(4), n.normal(4), num_groups=2)
    return x


@family("layer norm of parts")
def _layer_norm_of_parts(n: Net) -> str:
    mean = n.axes("ReduceMean", "x", [-1] if n.opset >= 11 else [3], 18, keepdims=1)
    far = n.add("Sub", "x", mean)
    square = n.add("Pow", far, n.hold(2.0))
    var = n.axes("ReduceMean", square, [3], 18, keepdims=1)
    root = n.add("Sqrt", n.add("Add", var, n.hold(1e-5)))
    return n.add("Add", n.add("Mul", n.add("Div", far, root), n.normal(8)), n.normal(8))


@family("softmax")
def _softmax(n: Net) -> str:
    a = n.add("Softmax", "x", axis=1)
    b = n.add("LogSoftmax", "x", axis=3)
    return n.add("Sum", a, b, n.add("Hardmax", "x", axis=2), n.add("Softmax", "x"))


@family("slice, gather, split, concat")
def _pieces(n: Net) -> str:
    a, b = n.split("x", 1, [1, 3])
    a = n.slice(a, 2, -5, 8 if n.opset < 10 else -1)
    b = n.slice(b, 3, 0, 8, 2) if n.opset >= 10 else n.slice(b, 3, 2, 6)
    c = n.add("Gather", b, n.hold([2, 0], np.int64), axis=1)
    d = n.add("Concat", c, c, axis=1)
    e = n.add("Transpose", n.axes("Squeeze", a, [1], 13), perm=[0, 2, 1])
    f = n.add("Reshape", n.add("Flatten", e), n.ints(1, 1, -1, 4))
    g = n.add("Tile", n.axes("ReduceMean", f, [2, 3], 18, keepdims=1), n.ints(1, 4, 1, 1))
    return n.add("Add", d, g)


@family("gather of elements", 11)
def _gather_elements(n: Net) -> str:
    where = n.hold(n.rng.integers(0, 8, (1, 4, 8, 3)), np.int64)
    x = n.add("GatherElements", "x", where, axis=3)
    return n.add("GatherND", x, n.hold([[[0, 1], [0, 3]]], np.int64))


@family("matmul, gemm")
def _matmul(n: Net) -> str:
    x = n.add("MatMul", "x", n.normal(8, 6, scale=0.3))
    x = n.add("MatMul", n.add("Transpose", x, perm=[0, 1, 3, 2]), x)
    x = n.add("Flatten", x)
    x = n.add("Gemm", x, n.normal(5, 144, scale=0.1), n.normal(5), alpha=0.5, beta=2.0, transB=1)
    return n.add("Gemm", x, n.normal(5, 3), n.normal(1, 3))


@family("einsum", 12)
def _einsum(n: Net) -> str:
    x = n.add("Einsum", "x", n.normal(8, 6, scale=0.3), equation="bchw,wd->bchd")
    return n.add("Einsum", x, x, equation="bchd,bcwd->bchw")


@family("activations")
def _activations(n: Net) -> str:
    given: dict[str, dict[str, Any]] = {
        "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 1.5}, "Selu": {}, "Sigmoid": {},
        "HardSigmoid": {"alpha": 0.3}, "Tanh": {}, "Softplus": {}, "Softsign": {}, "Exp": {},
        "Abs": {}, "Neg": {}, "ThresholdedRelu": {"alpha": 0.3}, "Floor": {}, "Ceil": {},
    }  # fmt: skip
    if n.opset >= 9:
        given |= {"Erf": {}, "Sinh": {}, "Sign": {}}
    if n.opset >= 14:
        given["HardSwish"] = {}
    if n.opset >= 18:
        given["Mish"] = {}
    if n.opset >= 20:
        given["Gelu"] = {"approximate": "tanh"}
    if n.opset == 24:  # ONNX Runtime 1.31 has no kernel of it behind that
        given["Swish"] = {"alpha": 1.0}
    parts = [n.add(op, "x", **more) for op, more in given.items()]
    parts.append(n.add("PRelu", "x", n.hold(n.rng.uniform(0, 1, (4, 1, 1)))))
    parts.append(n.add("Log", n.add("Sqrt", n.add("Add", n.add("Abs", "x"), n.hold(1.0)))))
    parts.append(n.add("Reciprocal", n.add("Exp", "x")))
    return n.add("Sum", *parts)


@family("clip, min, max")
def _clip(n: Net) -> str:
    x = n.clip("x", -0.5, 0.75)
    most, least = (n.hold(v if n.opset >= 8 else np.full(SHAPE, v)) for v in (0.5, -0.25))
    return n.add("Max", n.add("Min", x, most), least)


@family("LSTM")
def _lstm(n: Net) -> str:
    x = n.add("Transpose", n.axes("Squeeze", n.slice("x", 1, 0, 1), [1], 13), perm=[1, 0, 2])
    w = [n.normal(2, 24, k, scale=0.3) for k in (8, 6)]
    y, h, _ = n.several("LSTM", 3, x, *w, n.normal(2, 48), hidden_size=6, direction="bidirectional")
    y = n.add("Reshape", n.add("Transpose", y, perm=[2, 0, 1, 3]), n.ints(1, -1))
    return n.add("Concat", y, n.add("Flatten", n.add("Transpose", h, perm=[1, 0, 2])), axis=1)


@family("GRU")
def _gru(n: Net) -> str:
    x = n.add("Transpose", n.axes("Squeeze", n.slice("x", 1, 0, 1), [1], 13), perm=[1, 0, 2])
    w = [n.normal(1, 18, k, scale=0.3) for k in (8, 6)]
    y, h = n.several("GRU", 2, x, *w, n.normal(1, 36), hidden_size=6, linear_before_reset=1)
    r = n.several("RNN", 1, x, n.normal(1, 6, 8), n.normal(1, 6, 6), hidden_size=6)[0]
    y = n.add("Reshape", n.add("Transpose", n.add("Add", y, r), perm=[2, 0, 1, 3]), n.ints(1, -1))
    return n.add("Concat", y, n.add("Flatten", n.add("Transpose", h, perm=[1, 0, 2])), axis=1)


@family("topk, argmax")
def _topk(n: Net) -> str:
    if n.opset >= 10:
        values, at = n.several("TopK", 2, "x", n.ints(3), axis=3)
    else:
        values, at = n.several("TopK", 2, "x", axis=3, k=3)
    best = n.add("Cast", n.add("ArgMax", "x", axis=3, keepdims=1), to=TensorProto.FLOAT)
    least = n.add("Cast", n.add("ArgMin", "x", axis=3, keepdims=1), to=TensorProto.FLOAT)
    return n.sum(values, n.add("Cast", at, to=TensorProto.FLOAT), best, least)


@family("scatter", 9)
def _scatter(n: Net) -> str:
    op = "Scatter" if n.opset < 11 else "ScatterElements"
    where = n.hold(n.rng.permutation(8)[:3].reshape(1, 1, 1, 3), np.int64)
    x = n.add(op, "x", where, n.normal(1, 1, 1, 3), axis=3)
    if n.opset >= 11:
        more = {"reduction": "add"} if n.opset >= 16 else {}
        x = n.add("ScatterND", x, n.hold([[0, 1], [0, 3]], np.int64), n.normal(2, 8, 8), **more)
    return x


@family("depth to space")
def _depth_to_space(n: Net) -> str:
    x = n.add("DepthToSpace", n.add("SpaceToDepth", "x", blocksize=2), blocksize=4)
    if n.opset >= 11:
        x = n.add("DepthToSpace", n.add("SpaceToDepth", x, blocksize=8), blocksize=2, mode="CRD")
    return x


@family("quantize, dequantize", 10)
def _quantize(n: Net) -> str:
    def pair(x: str, scale: float) -> str:
        s, z = n.hold(scale), n.hold(100, np.uint8)
        return n.add("DequantizeLinear", n.add("QuantizeLinear", x, s, z), s, z)

    w = n.hold(n.rng.integers(-127, 128, (4, 4, 3, 3)), np.int8)
    w = n.add("DequantizeLinear", w, n.hold(0.01), n.hold(0, np.int8))
    return pair(n.add("Conv", pair("x", 0.04), w, n.normal(4), pads=[1, 1, 1, 1]), 0.1)


@family("weights in integers", 10)
def _stored(n: Net) -> str:
    w = n.hold(n.rng.integers(-127, 128, (4, 4, 3, 3)), np.int8)
    scale = n.hold(0.01) if n.opset < 13 else n.hold([0.01, 0.02, 0.03, 0.04])
    zero = n.hold(0, np.int8) if n.opset < 13 else n.hold([0, 1, 2, 3], np.int8)
    given = {"axis": 0} if n.opset >= 13 else {}
    return n.add("Conv", "x", n.add("DequantizeLinear", w, scale, zero, **given))


@family("cast, where, compare")
def _compare(n: Net) -> str:
    more = n.add("Greater", "x", n.hold(0.1))
    less = n.add("Less", "x", n.hold(-0.1))
    either = n.add("Not", n.add("And", n.add("Or", more, less), n.add("Xor", more, less)))
    x = n.add("Cast", either, to=TensorProto.FLOAT)
    whole = n.add("Cast", n.add("Mul", "x", n.hold(5.0)), to=TensorProto.INT32)
    same = n.add("Equal", whole, n.hold(2, np.int32))
    if n.opset >= 9:
        x = n.add("Where", same, "x", x)
    if n.opset >= 12:
        x = n.add("Where", n.add("GreaterOrEqual", "x", n.hold(0.5)), x, n.hold(3.0))
    return n.add("Sum", x, n.add("Cast", same, to=TensorProto.FLOAT),
                 n.add("Cast", whole, to=TensorProto.FLOAT))  # fmt: skip


@family("shape arithmetic")
def _shapes(n: Net) -> str:
    """View by computed sizes, as torch writes it."""
    shape = n.add("Shape", "x")
    sides = [n.add("Gather", shape, n.hold(i, np.int64)) for i in (0, 1, 2, 3)]
    area = n.add("Mul", sides[2], sides[3])
    parts = [n.axes("Unsqueeze", s, [0], 13) for s in (sides[0], sides[1], area)]
    x = n.add("Reshape", "x", n.add("Concat", *parts, axis=0))
    x = n.add("MatMul", x, n.normal(64, 5, scale=0.2))
    if n.opset >= 9:
        zeros = n.add("ConstantOfShape", n.add("Shape", x))
        x = n.add("Add", x, zeros)
    if n.opset >= 8:
        first = n.axes("Unsqueeze", sides[1], [0], 13)
        to = n.add("Concat", n.ints(1), first, n.ints(5), axis=0)
        x = n.add("Add", x, n.add("Expand", n.normal(1, 1, 5), to))
    return x


@family("attention, RMS norm", 23)
def _attention(n: Net) -> str:
    x = n.add("Reshape", "x", n.ints(1, 8, 32))
    q, k, v = (n.add("MatMul", x, n.normal(32, 16, scale=0.2)) for _ in range(3))
    y = n.add("Attention", q, k, v, q_num_heads=2, kv_num_heads=2)
    return n.add("RMSNormalization", y, n.normal(16), axis=-1)
