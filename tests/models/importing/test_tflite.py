"""A float .tflite file as ONNX: every operator of the table, against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecv.backends.onnxruntime.run import plain as onnx_session
from edgecv.backends.tflite import run as litert
from edgecv.backends.tflite.run import plain as tflite_session
from edgecv.errors import ModelError, UnsupportedError
from edgecv.models.importing.tflite import tflite_to_onnx
from edgecv.models.importing.tflite.operators import OPERATORS
from edgecv.models.importing.tflite.proof import first
from edgecv.quick_export import Exported, Request, export
from edgecv.runtime import open_bundle
from tests.models.importing.tflite_files import File, conv

RNG = np.random.default_rng(3)
Case = Callable[[File], Any]
W = RNG.normal(0, 0.5, (6, 3, 5, 4))


def one(name: str, shape: tuple[int, ...] = (1, 7, 6, 4), out: Any = None, options: str = "",
        constants: Any = (), **given: Any) -> Case:  # fmt: skip
    """One operator behind a convolution where it reads images, so that layouts meet."""

    def build(f: File) -> int:
        x = f.input(*shape)
        x = conv(f, x, shape[3]) if len(shape) == 4 else x
        held = [f.hold(v, "int32" if np.asarray(v).dtype.kind == "i" else "float32")
                for v in constants]  # fmt: skip
        return f.op(name, [x, *held], out or shape, options=options, **given)

    return build


def two(name: str, options: str, right: Any, **given: Any) -> Case:
    """An operator of two; right: a constant, or the shape of a second input."""

    def build(f: File) -> int:
        x = conv(f, f.input(1, 7, 6, 4), 4)
        y = f.input(*right) if isinstance(right, tuple) else f.hold(right)
        return f.op(name, [x, y], (1, 7, 6, 4), options=options, **given)

    return build


def _conv(**given: Any) -> Case:
    """Padding, strides, dilation and activation as they are given."""
    o = {"padding": 0, "strideH": 2, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}

    def build(f: File) -> int:
        full = {**o, **given}
        kh, kw = ((k - 1) * d + 1 for k, d in ((3, full["dilationHFactor"]),
                                               (5, full["dilationWFactor"])))  # fmt: skip
        less = (kh - 1, kw - 1) if full["padding"] else (0, 0)
        h, w = (-(-(n - cut) // s) for n, cut, s in zip((11, 12), less, (full["strideH"],
                full["strideW"]), strict=True))  # fmt: skip
        x = f.input(1, 11, 12, 4)
        return f.op("CONV_2D", [x, f.hold(W), f.hold(RNG.normal(size=6))], (1, h, w, 6),
                    options="Conv2D", **full)  # fmt: skip

    return build


def _grouped(f: File) -> int:
    x = f.input(1, 8, 8, 4)
    return f.op("CONV_2D", [x, f.hold(RNG.normal(size=(6, 1, 1, 2))), f.hold(np.zeros(6))],
                (1, 8, 8, 6), options="Conv2D", padding=1, strideH=1, strideW=1,
                dilationHFactor=1, dilationWFactor=1)  # fmt: skip


def _depthwise(f: File) -> int:
    x = f.input(1, 9, 8, 3)
    w = f.hold(RNG.normal(size=(1, 3, 3, 6)))
    return f.op("DEPTHWISE_CONV_2D", [x, w, f.hold(RNG.normal(size=6))], (1, 5, 4, 6),
                options="DepthwiseConv2D", padding=0, strideH=2, strideW=2, depthMultiplier=2,
                dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=3)  # fmt: skip


def _transposed(padding: int, out: tuple[int, int], bias: bool) -> Case:
    def build(f: File) -> int:
        x = f.input(1, 5, 6, 4)
        inputs = [f.hold([1, *out, 3], "int32"), f.hold(RNG.normal(size=(3, 3, 3, 4))), x]
        inputs += [f.hold(RNG.normal(size=3))] if bias else []
        return f.op("TRANSPOSE_CONV", inputs, (1, *out, 3), options="TransposeConv",
                    padding=padding, strideH=2, strideW=2)  # fmt: skip

    return build


def _dense(f: File) -> int:
    x = conv(f, f.input(1, 4, 3, 2), 2)
    w = f.hold(RNG.normal(size=(5, 24)))
    return f.op("FULLY_CONNECTED", [x, w, f.hold(RNG.normal(size=5))], (1, 5),
                options="FullyConnected", fusedActivationFunction=1)  # fmt: skip


def _pool(name: str, padding: int, out: tuple[int, int]) -> Case:
    return one(name, (1, 7, 6, 4), (1, *out, 4), "Pool2D", padding=padding, strideH=2, strideW=2,
               filterHeight=3, filterWidth=3)  # fmt: skip


def _split(f: File) -> int:
    x = conv(f, f.input(1, 6, 5, 4), 4)
    first = f.op("SPLIT", [f.hold(np.int32(3), "int32"), x], (1, 6, 5, 2), (1, 6, 5, 2),
                 options="Split", numSplits=2)  # fmt: skip
    return f.op("SUB", [first, first + 1], (1, 6, 5, 2), options="Sub")


def _split_v(f: File) -> int:
    x = conv(f, f.input(1, 6, 5, 4), 4)
    first = f.op("SPLIT_V", [x, f.hold([2, 4], "int32"), f.hold(np.int32(1), "int32")],
                 (1, 2, 5, 4), (1, 4, 5, 4), options="SplitV", numSplits=2)  # fmt: skip
    return first + 1


def _unpack(f: File) -> int:
    x = conv(f, f.input(1, 2, 5, 4), 4)
    first = f.op("UNPACK", [x], (1, 5, 4), (1, 5, 4), options="Unpack", num=2, axis=1)
    return f.op("PACK", [first + 1, first], (1, 5, 2, 4), options="Pack", axis=2, valuesCount=2)


def _concat(axis: int, out: tuple[int, ...]) -> Case:
    def build(f: File) -> int:
        x = f.input(1, 4, 5, 2)
        return f.op("CONCATENATION", [conv(f, x, 2), x], out, options="Concatenation", axis=axis)

    return build


def _sum(f: File) -> int:
    x = f.input(1, 4, 5, 2)
    return f.op("ADD_N", [conv(f, x, 2), x, conv(f, x, 2, 1)], (1, 4, 5, 2), options="AddN")


def _matmul(f: File) -> int:
    x, y = f.input(1, 3, 4, 5), f.input(1, 3, 6, 5)
    return f.op("BATCH_MATMUL", [x, y], (1, 3, 4, 6), options="BatchMatMul", adjX=False, adjY=True)


def _positive(name: str, **given: Any) -> Case:
    def build(f: File) -> int:
        x = f.input(1, 7, 6, 4)
        x = f.op("ADD", [x, f.hold(0.5)], (1, 7, 6, 4), options="Add")
        return f.op(name, [x], (1, 7, 6, 4), **given)

    return build


def _power(f: File) -> int:
    x = f.op("ADD", [f.input(1, 7, 6, 4), f.hold(0.5)], (1, 7, 6, 4), options="Add")
    return f.op("POW", [x, f.hold(1.7)], (1, 7, 6, 4), options="Pow")


def _halves(f: File) -> int:
    """fp16 weights behind DEQUANTIZE."""
    w = f.op("DEQUANTIZE", [f.hold(W, "float16")], W.shape, options="Dequantize")
    x = f.input(1, 8, 8, 4)
    return f.op("CONV_2D", [x, w, f.hold(np.zeros(6))], (1, 8, 8, 6), options="Conv2D", padding=0,
                strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)  # fmt: skip


def _sparse(f: File) -> int:
    """Weights (4, 1, 1, 8) without their zeros, in blocks of 4 inputs."""
    dense = np.zeros((4, 1, 1, 8), np.float32)
    places = [(0, 1), (2, 0), (2, 1), (3, 0)]  # output channel, block of inputs
    for o, b in places:
        dense[o, 0, 0, 4 * b : 4 * b + 4] = RNG.normal(size=4)
    values = np.concatenate([dense[o, 0, 0, 4 * b : 4 * b + 4] for o, b in places])
    index = f.hold(values)
    f.graph.tensors[index].shape = [4, 1, 1, 8]
    told = schema.SparsityParametersT()
    told.traversalOrder, told.blockMap = [0, 1, 2, 3, 4], [3]
    levels = [_level(4), _level(1), _level(1), _level(segments=[0, 1, 1, 3, 4], at=[1, 0, 1, 0]),
              _level(4)]  # fmt: skip
    told.dimMetadata = levels
    f.graph.tensors[index].sparsity = told
    w = f.op("DENSIFY", [index], (4, 1, 1, 8), options="Densify")
    x = f.input(1, 5, 5, 8)
    return f.op("CONV_2D", [x, w, f.hold(np.zeros(4))], (1, 5, 5, 4), options="Conv2D", padding=0,
                strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)  # fmt: skip


def _level(size: int = 0, segments: Any = None, at: Any = None) -> Any:
    made = schema.DimensionMetadataT()
    if segments is None:
        made.format, made.denseSize = 0, size
        return made
    made.format = 1
    for field, kind, values in (("arraySegments", "arraySegmentsType", segments),
                                ("arrayIndices", "arrayIndicesType", at)):  # fmt: skip
        vector = schema.Int32VectorT()
        vector.values = values
        setattr(made, field, vector)
        setattr(made, kind, schema.SparseIndexVector.Int32Vector)
    return made


IMAGE = (1, 7, 6, 4)
STRIDED = {"beginMask": 2, "endMask": 8, "shrinkAxisMask": 1, "ellipsisMask": 0, "newAxisMask": 0}
CASES: dict[str, Case] = {
    "conv same": _conv(),
    "conv valid": _conv(padding=1, fusedActivationFunction=1),
    "conv dilated": _conv(strideH=1, dilationHFactor=2, dilationWFactor=2),
    "conv in groups": _grouped,
    "depthwise": _depthwise,
    "transposed same": _transposed(0, (10, 12), bias=True),
    "transposed valid": _transposed(1, (11, 13), bias=False),
    "transposed more": _transposed(1, (12, 14), bias=True),
    "dense": _dense,
    "average same": _pool("AVERAGE_POOL_2D", 0, (4, 3)),
    "largest same": _pool("MAX_POOL_2D", 0, (4, 3)),
    "largest valid": _pool("MAX_POOL_2D", 1, (3, 2)),
    "batch matmul": _matmul,
    "halves": _halves,
    "sparse": _sparse,
    **{op.lower(): two(op, kind, (1, 7, 6, 4)) for op, kind in (
        ("ADD", "Add"), ("SUB", "Sub"), ("MUL", "Mul"), ("MAXIMUM", "MaximumMinimum"),
        ("MINIMUM", "MaximumMinimum"), ("SQUARED_DIFFERENCE", "SquaredDifference"))},
    "add a channel's": two("ADD", "Add", RNG.normal(size=4), fusedActivationFunction=2),
    "mul an image's": two("MUL", "Mul", RNG.normal(size=(7, 6, 1))),
    "div": two("DIV", "Div", np.float32(1.7)),
    "pow": _power,
    "add_n": _sum,
    **{op.lower(): one(op) for op in (
        "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "ELU")},
    **{op.lower(): one(op, options=kind) for op, kind in (
        ("EXP", "Exp"), ("NEG", "Neg"), ("ABS", "Abs"), ("SQUARE", "Square"))},
    "floor": one("FLOOR", (1, 6)),
    "relu_0_to_1": one("RELU_0_TO_1"),
    "gelu": one("GELU", options="Gelu", approximate=False),
    "gelu tanh": one("GELU", options="Gelu", approximate=True),
    "leaky": one("LEAKY_RELU", options="LeakyRelu", alpha=0.2),
    "prelu": one("PRELU", constants=[RNG.normal(size=(1, 1, 4))]),
    "prelu of rows": one("PRELU", (1, 6), constants=[RNG.normal(size=6)]),
    "softmax": one("SOFTMAX", options="Softmax", beta=1.0),
    "softmax of rows": one("SOFTMAX", (1, 6), options="Softmax", beta=0.5),
    "log_softmax": one("LOG_SOFTMAX", options="LogSoftmax"),
    "l2": one("L2_NORMALIZATION", options="L2Norm"),
    "log": _positive("LOG"), "sqrt": _positive("SQRT"), "rsqrt": _positive("RSQRT"),
    "pad": one("PAD", out=(1, 10, 7, 4), options="Pad",
               constants=[np.array([[0, 0], [1, 2], [0, 1], [0, 0]])]),
    "padv2": one("PADV2", out=(1, 8, 6, 5), options="PadV2",
                 constants=[np.array([[0, 0], [0, 1], [0, 0], [1, 0]]), np.float32(-2.5)]),
    "mirror": one("MIRROR_PAD", out=(1, 9, 7, 4), options="MirrorPad", mode=0,
                  constants=[np.array([[0, 0], [1, 1], [0, 1], [0, 0]])]),
    "reshape": one("RESHAPE", out=(1, 42, 4), options="Reshape", constants=[np.array([1, 42, 4])],
                   newShape=[1, 42, 4]),
    "squeeze": one("SQUEEZE", (1, 7, 1, 4), (1, 7, 4), "Squeeze", squeezeDims=[2]),
    "expand": one("EXPAND_DIMS", (1, 6), (1, 1, 6), "ExpandDims", [np.int32(1)]),
    "transpose": one("TRANSPOSE", out=(1, 4, 6, 7), options="Transpose",
                     constants=[np.array([0, 3, 2, 1])]),
    "concat channels": _concat(3, (1, 4, 5, 4)),
    "concat rows": _concat(-3, (1, 8, 5, 2)),
    "split": _split, "split_v": _split_v, "unpack and pack": _unpack,
    "strided": one("STRIDED_SLICE", out=(4, 3, 3), options="StridedSlice", **STRIDED,
                   constants=[np.array(v) for v in ([0, 3, 5, 1], [1, 7, 0, 2], [1, 2, -2, 1])]),
    "strided in place": one("STRIDED_SLICE", out=(1, 3, 6, 4), options="StridedSlice",
                            **{**STRIDED, "beginMask": 0, "endMask": 12, "shrinkAxisMask": 0},
                            constants=[np.array(v) for v in ([0, 1, 0, 0], [1, 7, 1, 1],
                                                             [1, 2, 1, 1])]),
    "slice": one("SLICE", out=(1, 3, 6, 2), options="Slice",
                 constants=[np.array([0, 2, 0, 1]), np.array([1, 3, -1, 2])]),
    "gather": one("GATHER", out=(1, 7, 3, 4), options="Gather", axis=2,
                  constants=[np.array([5, 0, 2])]),
    "mean": one("MEAN", out=(1, 1, 1, 4), options="Reducer", keepDims=True,
                constants=[np.array([1, 2])]),
    "mean of rows": one("MEAN", out=(1, 4), options="Reducer", constants=[np.array([1, 2])]),
    "sum": one("SUM", out=(1, 7, 6), options="Reducer", constants=[np.array([-1])]),
    "reduce_max": one("REDUCE_MAX", out=(1, 7, 1, 4), options="Reducer", keepDims=True,
                      constants=[np.array([2])]),
    "reduce_min": one("REDUCE_MIN", out=(1, 4), options="Reducer", constants=[np.array([2, 1])]),
    **{f"{name} {how}": one(op, out=(1, 10, 9, 4), options=kind, constants=[np.array([10, 9])],
                            **{"alignCorners": how == "corners", "halfPixelCenters": how == "half"})
       for name, op, kind in (("bilinear", "RESIZE_BILINEAR", "ResizeBilinear"),
                              ("nearest", "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor"))
       for how in ("plain", "corners", "half")},
    "depth to space": one("DEPTH_TO_SPACE", (1, 3, 2, 8), (1, 6, 4, 2), "DepthToSpace",
                          blockSize=2),
    "space to depth": one("SPACE_TO_DEPTH", (1, 6, 4, 2), (1, 3, 2, 8), "SpaceToDepth",
                          blockSize=2),
    "best": one("ARG_MAX", out=(1, 7, 6), options="ArgMax", constants=[np.int32(3)], kind="int32",
                outputType=2),
    "worst": one("ARG_MIN", (1, 6), (1,), "ArgMin", [np.int32(-1)], kind="int32", outputType=2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_answers_as_litert_does(name: str) -> None:
    f = File()
    content = f.bytes(CASES[name](f))
    made = tflite_to_onnx(content, "net.tflite")  # proves it too, on other numbers
    before, after = tflite_session({"m.tflite": content}), onnx_session(
        {"m.onnx": made.SerializeToString()})  # fmt: skip
    assert [t.name for t in after.inputs] == [t.name for t in before.inputs]
    feeds = {t.name: RNG.normal(size=t.shape).astype(t.dtype) for t in before.inputs}
    wanted, found = before.run(feeds), after.run(feeds)
    for t in before.outputs:
        assert found[t.name].dtype == wanted[t.name].dtype
        np.testing.assert_allclose(found[t.name], first(wanted[t.name]), rtol=1e-4, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    ran = set()
    for build in CASES.values():
        f = File()
        build(f)
        names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        ran |= {names[c.builtinCode] for c in f.model.operatorCodes}
    assert set(OPERATORS) <= ran


def test_images_stay_channels_first_between_layers() -> None:
    f = File()
    x = conv(f, conv(f, f.input(1, 8, 8, 3), 4), 4, 1)
    x = f.op("ADD", [x, f.hold(RNG.normal(size=4))], (1, 8, 8, 4), options="Add")
    made = tflite_to_onnx(f.bytes(conv(f, x, 2, 2)), "net.tflite")
    assert sum(n.op_type == "Transpose" for n in made.graph.node) == 1  # of the image


def test_names_of_its_signature() -> None:
    f = File()
    x = f.input(1, 8, 8, 3)
    y = conv(f, x, 2)
    signed = schema.SignatureDefT()
    signed.signatureKey, signed.subgraphIndex = b"serving_default", 0
    for field, name, index in (("inputs", b"image", x), ("outputs", b"scores", y)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        setattr(signed, field, [entry])
    f.model.signatureDefs = [signed]
    made = tflite_to_onnx(f.bytes(y), "net.tflite")
    assert [i.name for i in made.graph.input] == ["image"]
    assert [o.name for o in made.graph.output] == ["scores"]


def test_scores_that_are_nearly_nothing_are_not_called_wrong() -> None:
    f = File()
    x = f.op("SUB", [f.input(1, 6), f.hold(19.0)], (1, 6), options="Sub")
    tflite_to_onnx(f.bytes(f.op("LOGISTIC", [x], (1, 6))), "net.tflite")


def test_an_operator_said_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "TANH", OPERATORS["LOGISTIC"])
    f = File()
    content = f.bytes(CASES["tanh"](f))
    with pytest.raises(ModelError, match="would answer otherwise in ONNX"):
        tflite_to_onnx(content, "net.tflite")


def test_custom_operators_are_refused_by_name() -> None:
    f = File()
    content = f.bytes(f.op("TransformLandmarks", [f.input(1, 8)], (1, 8), custom=True))
    with pytest.raises(UnsupportedError, match="TransformLandmarks"):
        tflite_to_onnx(content, "net.tflite")


def test_quantized_files_are_refused() -> None:
    f = File()
    x = f.input(1, 8, kind="int8")
    grid = schema.QuantizationParametersT()
    grid.scale, grid.zeroPoint = [0.1], [0]
    f.graph.tensors[x].quantization = grid
    with pytest.raises(UnsupportedError, match="quantized integers"):
        tflite_to_onnx(f.bytes(f.op("ABS", [x], (1, 8), kind="int8", options="Abs")), "n.tflite")


@pytest.mark.parametrize("content", [b"", b"no such thing", b"\x1c\x00\x00\x00TFL3 and no more"])
def test_damaged_files(content: bytes) -> None:
    with pytest.raises(ModelError):
        tflite_to_onnx(content, "net.tflite")


def test_a_bundle_answers_in_the_files_own_layout(tmp_path: Path) -> None:
    """An output as large down as across, which channels first and last do not tell apart."""
    f = File()
    x = f.input(1, 8, 6, 3)
    square = f.op("RESIZE_BILINEAR", [conv(f, x, 6), f.hold([6, 6], "int32")], (1, 6, 6, 6),
                  options="ResizeBilinear")  # fmt: skip
    path = tmp_path / "net.tflite"
    path.write_bytes(f.bytes(square, conv(f, x, 2, 1)))
    made = export(Request(str(path), ("cpu",), precision="fp32"), tmp_path / "out")["cpu"]
    assert isinstance(made, Exported)
    bundle, session = open_bundle(made.bundle), litert.plain({"m.tflite": path.read_bytes()})
    feeds = {"in0": RNG.normal(size=(1, 8, 6, 3)).astype("f4")}
    found, wanted = bundle.run(feeds), session.run(feeds)
    assert [t.shape for t in bundle.outputs] == [(1, 6, 6, 6), (1, 8, 6, 2)]
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
