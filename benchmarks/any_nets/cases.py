"""Graphs of one operator behind a convolution, one a form that people's files hold.

Each case is a function of a `Graph` and the name of an image (1, 8, 12, 12) that gives the name of
the output; `build(case)` is a checked model of it whose only input is a picture (1, 3, 12, 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIDE, CHANNELS = 12, 8
Case = Callable[["Graph", str], str]


class Graph:
    """Nodes and constants by the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """One node. inputs: names, None for one that is left out, and constants: a list of whole
        numbers is int64, a float or an array float32. Its output's name, or a list of them."""
        names = ["" if i is None else i if isinstance(i, str) else self.held(i) for i in inputs]
        made = [f"{op.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=made[0], **attributes))
        return made if outputs > 1 else made[0]

    def held(self, value: Any) -> str:
        """A constant."""
        kind = np.int64 if isinstance(value, (list, int)) else getattr(value, "dtype", np.float32)
        name = f"k{len(self.constants)}"
        kind = np.float32 if kind == np.float64 else kind
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def drawn(self, *shape: int, size: float = 0.4) -> np.ndarray:
        """float32 of this shape: mean 0, deviation `size`."""
        return self.rng.normal(0, size, shape).astype(np.float32)

    def conv(self, x: str, c_in: int, c_out: int, k: int = 3, **attributes: Any) -> str:
        weight = self.drawn(c_out, c_in, k, k, size=1.2 / (c_in**0.5 * k))
        pads = attributes.pop("pads", [k // 2] * 4)
        made: str = self("Conv", x, weight, self.drawn(c_out, size=0.1), pads=pads, **attributes)
        return made

    # what an operator may find before it

    def tokens(self, x: str) -> str:
        """An image as (1, 144, 8)."""
        flat = self("Reshape", x, [1, CHANNELS, SIDE * SIDE])
        made: str = self("Transpose", flat, perm=[0, 2, 1])
        return made

    def row(self, x: str) -> str:
        """An image as (1, 8)."""
        made: str = self("Flatten", self("GlobalAveragePool", x))
        return made

    def positive(self, x: str) -> str:
        """Between 0.2 and 1.2."""
        made: str = self("Add", self("Sigmoid", x), np.float32(0.2))
        return made

    def steps(self, x: str) -> str:
        """Rows of an image as (12, 1, 96): what recurrent operators read."""
        made: str = self("Reshape", self("Transpose", x, perm=[2, 0, 1, 3]), [SIDE, 1, -1])
        return made


def build(name: str, opset: int = 18) -> onnx.ModelProto:
    """The model of a case, whose output has the shape that ONNX Runtime gives it."""
    import onnxruntime as ort

    case, opset = CASES[name], OPSETS.get(name, opset)
    b = Graph(len(name))
    end = case(b, b.conv("x", 3, CHANNELS))
    source = helper.make_tensor_value_info("x", 1, [1, 3, SIDE, SIDE])
    for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64):
        out = helper.make_tensor_value_info(end, kind, None)
        graph = helper.make_graph(b.nodes, "case", [source], [out], b.constants)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        try:
            session = ort.InferenceSession(model.SerializeToString(), _plainly())
        except ort.capi.onnxruntime_pybind11_state.Fail:  # the output's type is another
            continue
        (y,) = session.run(None, {"x": np.zeros((1, 3, SIDE, SIDE), np.float32)})
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(end, kind, y.shape))
        return model
    raise ValueError(f"{name}: its output is neither float nor int64")


def _plainly() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _one(op: str, *more: Any, **attributes: Any) -> Case:
    """The operator on the image itself."""
    return lambda b, c: b(op, c, *more, **attributes)


def _two(op: str) -> Case:
    """The operator on two images."""
    return lambda b, c: b(op, c, b.conv(c, CHANNELS, CHANNELS))


def _resize(mode: str, grid: str, *, scales: list[float] | None = None,
            sizes: list[int] | None = None, **attributes: Any) -> Case:  # fmt: skip
    return lambda b, c: b(
        "Resize", c, None, None if sizes else np.array(scales, np.float32), sizes, mode=mode,
        coordinate_transformation_mode=grid, **attributes,
    )  # fmt: skip


def _recurrent(op: str, gates: int, direction: str = "forward", **attributes: Any) -> Case:
    count, hidden, width = (2 if direction == "bidirectional" else 1), 6, CHANNELS * SIDE

    def case(b: Graph, c: str) -> str:
        x, size = b.steps(c), gates * hidden
        parts = (b.drawn(count, size, width, size=0.1), b.drawn(count, size, hidden),
                 b.drawn(count, 2 * size))  # fmt: skip
        y = b(op, x, *parts, direction=direction, hidden_size=hidden, **attributes)
        made: str = b("Transpose", y, perm=[2, 0, 1, 3])  # the batch first
        return made

    return case


def _transposed(**attributes: Any) -> Case:
    return lambda b, c: b("ConvTranspose", c, b.drawn(CHANNELS, 4, 3, 3, size=0.2),
                          b.drawn(4), strides=[2, 2], **attributes)  # fmt: skip


def _window(op: str, **attributes: Any) -> Case:
    return lambda b, c: b(op, c, kernel_shape=[3, 3], **attributes)


def _group_norm(b: Graph, c: str) -> str:
    opset = CHANNELS if b is not None else 0
    made: str = b("GroupNormalization", c, 1 + b.drawn(opset), b.drawn(opset), num_groups=2)
    return made


def _attention(b: Graph, c: str) -> str:
    t = b.tokens(c)
    q, k, v = (b("MatMul", t, b.drawn(CHANNELS, CHANNELS)) for _ in range(3))
    weight = b("Softmax", b("MatMul", q, b("Transpose", k, perm=[0, 2, 1])), axis=-1)
    made: str = b("MatMul", weight, v)
    return made


def _shuffle(b: Graph, c: str) -> str:
    apart = b("Reshape", c, [1, 2, CHANNELS // 2, SIDE, SIDE])
    back = b("Transpose", apart, perm=[0, 2, 1, 3, 4])
    made: str = b.conv(b("Reshape", back, [1, CHANNELS, SIDE, SIDE]), CHANNELS, CHANNELS)
    return made


def _gelu_by_hand(b: Graph, c: str) -> str:
    half = b("Mul", c, np.float32(0.5))
    made: str = b("Mul", half, b("Add", b("Erf", b("Div", c, np.float32(2**0.5))), np.float32(1.0)))
    return made


def _where(b: Graph, c: str) -> str:
    made: str = b("Where", b("Greater", c, np.float32(0.1)), c, b("Mul", c, np.float32(-0.3)))
    return made


def _trilu(b: Graph, c: str) -> str:
    made: str = b("Trilu", c, upper=0)
    return made


def _grid_sample(b: Graph, c: str) -> str:
    across = np.linspace(-0.9, 0.9, SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(across, across), -1)[None]
    made: str = b("GridSample", c, grid, mode="linear" if OPSETS["GridSample"] > 19 else "bilinear")
    return made


def _indices(op: str, **attributes: Any) -> Case:
    return lambda b, c: b(op, c, axis=1, **attributes)


def _reduce(op: str, axes: list[int], keepdims: int = 1, by: str = "") -> Case:
    return lambda b, c: b(op, b.positive(c) if by else c, axes, keepdims=keepdims)


CASES: dict[str, Case] = {
    # layers
    "Conv stride 2": lambda b, c: b.conv(c, 8, 8, strides=[2, 2]),
    "Conv depthwise": lambda b, c: b.conv(c, 1, 8, group=8),
    "Conv groups": lambda b, c: b.conv(c, 4, 8, group=2),
    "Conv dilated": lambda b, c: b.conv(c, 8, 8, dilations=[2, 2], pads=[2] * 4),
    "Conv uneven pads": lambda b, c: b.conv(c, 8, 8, pads=[0, 1, 2, 1], strides=[2, 2]),
    "Conv SAME_LOWER": lambda b, c: b(
        "Conv", c, b.drawn(8, 8, 3, 3, size=0.15), auto_pad="SAME_LOWER", strides=[2, 2]),
    "Conv 1-D": lambda b, c: b(
        "Conv", b("Reshape", c, [1, 8, 144]), b.drawn(8, 8, 3, size=0.2), pads=[1, 1]),
    "ConvTranspose": _transposed(pads=[1] * 4),
    "ConvTranspose output_padding": _transposed(pads=[1] * 4, output_padding=[1, 1]),
    "ConvTranspose 2x2": lambda b, c: b(
        "ConvTranspose", c, b.drawn(8, 4, 2, 2), strides=[2, 2]),
    "ConvTranspose groups": lambda b, c: b(
        "ConvTranspose", c, b.drawn(8, 4, 2, 2), strides=[2, 2], group=2),
    "Gemm": lambda b, c: b("Gemm", b.row(c), b.drawn(5, 8), b.drawn(5), transB=1),
    "Gemm alpha, beta": lambda b, c: b(
        "Gemm", b.row(c), b.drawn(8, 5), b.drawn(5), alpha=0.5, beta=2.0),
    "MatMul by weights": lambda b, c: b("MatMul", b.tokens(c), b.drawn(8, 6)),
    "MatMul of two activations": _attention,
    "Einsum": lambda b, c: b("Einsum", c, b.drawn(8, 6), equation="bchw,cd->bdhw"),
    "Einsum of two activations": lambda b, c: b(
        "Einsum", c, b.conv(c, 8, 8), equation="bchw,bchv->bcwv"),
    "BatchNormalization": lambda b, c: b(
        "BatchNormalization", b("Relu", c), 1 + b.drawn(8), b.drawn(8), b.drawn(8),
        1 + np.abs(b.drawn(8))),
    # pools
    "MaxPool": _window("MaxPool", strides=[2, 2]),
    "MaxPool padded": _window("MaxPool", strides=[2, 2], pads=[1] * 4),
    "MaxPool ceil_mode": _window("MaxPool", strides=[2, 2], ceil_mode=1),
    "AveragePool": _window("AveragePool", strides=[2, 2]),
    "AveragePool padded": _window("AveragePool", strides=[1, 1], pads=[1] * 4),
    "AveragePool count_include_pad": _window(
        "AveragePool", strides=[2, 2], pads=[1] * 4, count_include_pad=1),
    "GlobalAveragePool": _one("GlobalAveragePool"),
    "GlobalMaxPool": _one("GlobalMaxPool"),
    # functions of one value
    "Abs": _one("Abs"), "Neg": _one("Neg"), "Relu": _one("Relu"), "Sigmoid": _one("Sigmoid"),
    "Tanh": _one("Tanh"), "Erf": _one("Erf"), "Floor": _one("Floor"),
    "Exp": lambda b, c: b("Exp", b("Mul", c, np.float32(0.3))),
    "Log": lambda b, c: b("Log", b.positive(c)),
    "Sqrt": lambda b, c: b("Sqrt", b.positive(c)),
    "Reciprocal": lambda b, c: b("Reciprocal", b.positive(c)),
    "Pow 2": _one("Pow", np.float32(2.0)),
    "Pow 0.7": lambda b, c: b("Pow", b.positive(c), np.float32(0.7)),
    "Sin": _one("Sin"), "Cos": _one("Cos"), "Sign": _one("Sign"), "Round": _one("Round"),
    "LeakyRelu": _one("LeakyRelu", alpha=0.1), "Elu": _one("Elu"), "Selu": _one("Selu"),
    "Celu": _one("Celu", alpha=0.7), "Softplus": _one("Softplus"), "Softsign": _one("Softsign"),
    "Mish": _one("Mish"), "HardSigmoid": _one("HardSigmoid"), "HardSwish": _one("HardSwish"),
    "HardSigmoid 1/6": _one("HardSigmoid", alpha=1 / 6),
    "PRelu": lambda b, c: b("PRelu", c, np.abs(b.drawn(8, 1, 1))),
    "Clip 0..6": _one("Clip", np.float32(0), np.float32(6)),
    "Clip -1..1": _one("Clip", np.float32(-1), np.float32(1)),
    "Gelu (20)": _one("Gelu"), "Gelu tanh (20)": _one("Gelu", approximate="tanh"),
    "GELU by Erf": _gelu_by_hand,
    "SiLU by Sigmoid": lambda b, c: b("Mul", c, b("Sigmoid", c)),
    "ThresholdedRelu": _one("ThresholdedRelu", alpha=0.2),
    "Shrink": _one("Shrink", bias=0.0, lambd=0.3),
    # two values
    "Add": _two("Add"), "Sub": _two("Sub"), "Mul": _two("Mul"), "Max": _two("Max"),
    "Min": _two("Min"),
    "Div": lambda b, c: b("Div", c, b.positive(b.conv(c, 8, 8))),
    "Add a constant image": lambda b, c: b("Add", c, b.drawn(1, 8, 12, 12)),
    "Mul by a channel": lambda b, c: b("Mul", c, b("GlobalAveragePool", c)),
    "Where": _where,
    "Greater, Cast": lambda b, c: b("Cast", b("Greater", c, b.conv(c, 8, 8)), to=1),
    # over axes
    "ReduceMean H, W": _reduce("ReduceMean", [2, 3], 0),
    "ReduceMean C": _reduce("ReduceMean", [1]), "ReduceMean W": _reduce("ReduceMean", [3]),
    "ReduceMean tokens": lambda b, c: b("ReduceMean", b.tokens(c), [1], keepdims=0),
    "ReduceMax C": _reduce("ReduceMax", [1]), "ReduceMax H, W": _reduce("ReduceMax", [2, 3]),
    "ReduceMin C": _reduce("ReduceMin", [1]), "ReduceSum C": _reduce("ReduceSum", [1]),
    "ReduceSum all": _reduce("ReduceSum", [1, 2, 3], 0),
    "ReduceL1": _reduce("ReduceL1", [1]), "ReduceL2": _reduce("ReduceL2", [1]),
    "ReduceLogSumExp": _reduce("ReduceLogSumExp", [1]),
    "ReduceProd": _reduce("ReduceProd", [3], by="positive"),
    "Softmax C": _indices("Softmax"),
    "Softmax tokens": lambda b, c: b("Softmax", b.tokens(c), axis=-1),
    "LogSoftmax": lambda b, c: b("LogSoftmax", b("Mul", b.row(c), np.float32(4.0)), axis=-1),
    "LogSoftmax C": _indices("LogSoftmax"),
    "ArgMax": _indices("ArgMax"), "ArgMin": _indices("ArgMin", keepdims=0),
    "TopK": lambda b, c: b("TopK", c, [3], axis=1, outputs=2)[0],
    "CumSum": lambda b, c: b("CumSum", c, 3),
    "LpNormalization": _indices("LpNormalization", p=2),
    "L2 norm by hand": lambda b, c: b("Div", b.row(c), b("ReduceL2", b.row(c), [1])),
    "LayerNormalization": lambda b, c: b(
        "LayerNormalization", b.tokens(c), 1 + b.drawn(8), b.drawn(8)),
    "LayerNormalization C, H, W": lambda b, c: b(
        "LayerNormalization", c, 1 + b.drawn(8, 12, 12), b.drawn(8, 12, 12), axis=1),
    "InstanceNormalization": lambda b, c: b(
        "InstanceNormalization", c, 1 + b.drawn(8), b.drawn(8)),
    "GroupNormalization (18)": lambda b, c: b(
        "GroupNormalization", c, 1 + b.drawn(2), b.drawn(2), num_groups=2),
    "GroupNormalization (21)": _group_norm,
    "RMSNormalization (23)": lambda b, c: b("RMSNormalization", b.tokens(c), 1 + b.drawn(8)),
    "LRN": _one("LRN", size=3),
    # moving values
    "Concat C": lambda b, c: b("Concat", c, b.conv(c, 8, 4), axis=1),
    "Concat H": lambda b, c: b("Concat", c, b.conv(c, 8, 8), axis=2),
    "Slice C": _one("Slice", [2], [6], [1]), "Slice H, W": _one("Slice", [1, 2], [9, 11], [2, 3]),
    "Slice step 2": _one("Slice", [0, 1], [12, 12], [2, 3], [2, 2]),
    "Slice step -1": _one("Slice", [-1], [-99], [3], [-1]),
    "Split": lambda b, c: b(
        "Mul", *b("Split", c, [4, 4], axis=1, outputs=2)),
    "Gather a channel": lambda b, c: b("Gather", c, 3, axis=1),
    "Gather channels": lambda b, c: b("Gather", c, [3, 0, 5, 5], axis=1),
    "Pad constant": _one("Pad", [0, 0, 1, 2, 0, 0, 2, 1]),
    "Pad value": _one("Pad", [0, 0, 1, 2, 0, 0, 2, 1], np.float32(0.5)),
    "Pad reflect": _one("Pad", [0, 0, 1, 2, 0, 0, 2, 1], mode="reflect"),
    "Pad edge": _one("Pad", [0, 0, 1, 2, 0, 0, 2, 1], mode="edge"),
    "Pad C": _one("Pad", [0, 1, 0, 0, 0, 2, 0, 0]),
    "Reshape": _one("Reshape", [1, 4, 24, 12]), "Flatten": _one("Flatten"),
    "Transpose NHWC": _one("Transpose", perm=[0, 2, 3, 1]),
    "Transpose W, H": _one("Transpose", perm=[0, 1, 3, 2]),
    "Squeeze, Unsqueeze": lambda b, c: b(
        "Unsqueeze", b("Squeeze", b("GlobalAveragePool", c), [2, 3]), [1]),
    "Expand": lambda b, c: b("Expand", b("GlobalAveragePool", c), [1, 8, 3, 4]),
    "Tile": _one("Tile", [1, 1, 2, 2]),
    "DepthToSpace DCR": _one("DepthToSpace", blocksize=2),
    "DepthToSpace CRD": _one("DepthToSpace", blocksize=2, mode="CRD"),
    "SpaceToDepth": _one("SpaceToDepth", blocksize=2),
    "Channel shuffle": _shuffle,
    "Trilu": _trilu,
    "GatherElements": lambda b, c: b(
        "GatherElements", c, np.arange(11, -1, -1).repeat(1)[None, None, None].repeat(8, 1)
        .repeat(12, 2), axis=3),
    "GatherND": lambda b, c: b(
        "Unsqueeze", b("GatherND", c, np.array([[0, 1], [0, 5]])), [0]),
    "ScatterND": lambda b, c: b("ScatterND", c, np.array([[0, 1], [0, 5]]), b.drawn(2, 12, 12)),
    "Resize nearest x2": _resize("nearest", "asymmetric", scales=[1, 1, 2, 2],
                                 nearest_mode="floor"),
    "Resize nearest sizes": _resize("nearest", "half_pixel", sizes=[1, 8, 17, 9]),
    "Resize linear x2": _resize("linear", "half_pixel", scales=[1, 1, 2, 2]),
    "Resize linear align_corners": _resize("linear", "align_corners", sizes=[1, 8, 24, 24]),
    "Resize linear asymmetric": _resize("linear", "asymmetric", scales=[1, 1, 2, 2]),
    "Resize linear pytorch_half_pixel": _resize("linear", "pytorch_half_pixel",
                                                sizes=[1, 8, 17, 9]),
    "Resize linear x0.5": _resize("linear", "half_pixel", scales=[1, 1, 0.5, 0.5]),
    "Resize cubic": _resize("cubic", "half_pixel", scales=[1, 1, 2, 2]),
    "Resize cubic align_corners": _resize("cubic", "align_corners", sizes=[1, 8, 17, 9]),
    "Resize cubic asymmetric": _resize("cubic", "asymmetric", sizes=[1, 8, 24, 24]),
    "GridSample": _grid_sample,
    # recurrent
    "LSTM": _recurrent("LSTM", 4), "LSTM bidirectional": _recurrent("LSTM", 4, "bidirectional"),
    "GRU": _recurrent("GRU", 3, linear_before_reset=1),
    "GRU bidirectional": _recurrent("GRU", 3, "bidirectional", linear_before_reset=1),
    "GRU reset before": _recurrent("GRU", 3),
    "RNN": _recurrent("RNN", 1),
}  # fmt: skip
OPSETS = {
    "Gelu (20)": 20, "Gelu tanh (20)": 20, "GroupNormalization (21)": 21,
    "RMSNormalization (23)": 23, "GridSample": 20,
}  # fmt: skip
