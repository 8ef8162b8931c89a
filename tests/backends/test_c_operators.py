"""C: operators of any shape and axis, each an output of one network, as ONNX Runtime has them with
its optimisations off."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgecv
from edgecv import source_trust
from edgecv.backends.c.compile import compile as to_c
from edgecv.backends.c.read import _Reader, read
from edgecv.backends.c.run import Session, probe
from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.runtime.spec import TensorSpec, channels_first
from edgecv.target import load

pytestmark = pytest.mark.skipif(not probe().available, reason="no C compiler")
RNG = np.random.default_rng(3)
SHAPE = (1, 6, 5, 4)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


class Written:
    """A graph that grows: `w(op, inputs, ...)` adds a node and returns its value."""

    opset = 18

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self.outputs: list[str] = []

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **how: Any) -> str:
        names = [n if isinstance(n, str) else self.constant(n) for n in inputs]
        made = [f"v{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=f"{op}{len(self.nodes)}", **how))
        return made[0]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> np.ndarray:
        return np.array(values, np.int64)

    def ends(self, *names: str) -> None:
        self.outputs += names

    def model(self, shape: tuple[int, ...] = SHAPE, **others: tuple[int, ...]) -> Any:
        """others: shapes of the inputs behind "x" """
        given = {"x": shape, **others}
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in given.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in self.outputs],
            self.held,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def answers(model: Any, x: np.ndarray, **others: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(v) for v in session.run(None, {"x": x, **others})]


def compared(w: Written, room: Path) -> None:
    """Compiled, and held against ONNX Runtime and against its own reference."""
    model = w.model()
    onnx.save(model, str(room / "model.onnx"))
    outputs = tuple(TensorSpec(n, "float32", ()) for n in w.outputs)
    graph = Graph(room / "model.onnx", "onnx", "fp32", (), outputs, {})
    made = to_c(graph, load("c"), room / "c")
    files = {n: (room / "c" / n).read_bytes() for n in made.files}
    with source_trust.own():
        session = Session(files)
    assert session.outputs == made.outputs
    _, high, wide, channels = session.inputs[0].shape
    x = normal(1, channels, high, wide)
    found = session.run({"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})
    ops = {o: n.op_type for n in w.nodes for o in n.output}
    for spec, wanted in zip(session.outputs, answers(model, x), strict=True):
        got = channels_first(found[spec.name], spec)
        near = np.abs(wanted).max() + 1e-6
        np.testing.assert_allclose(
            got.reshape(wanted.shape), wanted, atol=2e-5 * near, rtol=2e-5,
            err_msg=f"{spec.name} {ops[spec.name]} {wanted.shape}",
        )  # fmt: skip
        assert spec.layout == "NHWC" or spec.shape in (wanted.shape, (1, wanted.size))
    session.close()
    if shutil.which("gcc"):
        sanitized(room)


def sanitized(room: Path, *more: str) -> None:
    """The golden vectors, with what a compiler and its sanitizers have to say an error."""
    flags = ["-std=c99", "-O0", "-Wall", "-Wextra", "-pedantic", "-Werror", "-ffp-contract=off"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover", *more]
    sources = [str(room / "c" / n) for n in ("main.c", "model.c")]
    built = ["gcc", *flags, *sources, "-o", str(room / "test")]
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    done = subprocess.run([str(room / "test")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[:2000]


def broadcasts(w: Written) -> Iterator[str]:
    """Two values of every shape that broadcasts, constants in either place."""
    row = w("ReduceMean", "x", w.ints(2, 3), keepdims=0)
    column = w("ReduceMax", "x", w.ints(1, 3))
    channel = w("ReduceMean", "x", w.ints(1))
    half = w("Slice", "x", w.ints(0), w.ints(5), w.ints(2), w.ints(1))
    matrix = w("Squeeze", w("Slice", "x", w.ints(1), w.ints(2), w.ints(1)), w.ints(0, 1))
    for op in ("Add", "Sub", "Mul", "Div"):
        for a, b in (
            ("x", "x"), ("x", channel), (column, "x"), (channel, column), ("x", matrix),
            ("x", normal(4) + 3), ("x", normal(5, 1) + 3), (normal(6, 1, 1) + 3, "x"),
            (np.float32(2), "x"), ("x", normal(1, 6, 1, 1) + 3), (half, half),
            (half, normal(4) + 3), (row, normal(6) + 3), (row, normal(3, 1) + 3), (matrix, column),
        ):  # fmt: skip
            yield w(op, a, b)
    yield w("Max", "x", channel, column)
    yield w("Min", "x", normal(5, 4))
    yield w("Mean", "x", channel, column)
    yield w("Sum", "x", channel, "x")
    yield w("Pow", "x", np.float32(2))
    yield w("Pow", "x", np.float32(3))
    yield w("Pow", w("Abs", "x"), w("Abs", column))
    yield w("PRelu", "x", normal(5, 1))
    for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"):
        truth = w(op, "x", column)
        yield w("Where", truth, "x", normal(4))
        yield w("Cast", w("Not", truth), to=TensorProto.FLOAT)
    both = w("And", w("Greater", "x", column), w("Less", "x", channel))
    yield w("Where", both, np.float32(1), channel)
    yield w("Where", w("Or", both, w("Less", "x", np.float32(-1))), "x", column)


def along_axes(w: Written) -> Iterator[str]:
    """What sums, normalises and multiplies, along every axis and several; of views too."""
    turned = w("Transpose", "x", perm=[0, 3, 1, 2])
    tokens = w("Transpose", w("Reshape", "x", w.ints(1, 6, 20)), perm=[0, 2, 1])
    wide = w("Reshape", "x", w.ints(1, 2, 3, 5, 4))
    part = w("Slice", "x", w.ints(1), w.ints(6), w.ints(1), w.ints(2))
    for axes in ((1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3), (0, 1), (-1,), (0, 1, 2, 3)):
        for op in ("ReduceMean", "ReduceMax"):
            for keep in (0, 1):
                yield w(op, "x", w.ints(*axes), keepdims=keep)
    for op in ("ReduceSum", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        yield w(op, "x", w.ints(1), keepdims=0)
        yield w(op, part, w.ints(1, 2))
        yield w(op, wide, w.ints(2, 4))
    yield w("ReduceMean", tokens, w.ints(2))
    yield w("ReduceMax", tokens, w.ints(1), keepdims=0)
    yield w("ReduceSum", "x", noop_with_empty_axes=1)
    yield w("ReduceSum", "x", keepdims=0)
    for value, rank in (("x", 4), (turned, 4), (tokens, 3), (wide, 5), (part, 4)):
        for axis in range(1, rank):
            yield w("Softmax", value, axis=axis)
        yield w("LogSoftmax", value, axis=-1)
    row = w("Flatten", w("GlobalAveragePool", "x"))
    yield w("Softmax", row)
    yield w("Softmax", w("GlobalAveragePool", "x"))  # of one value each
    yield w("LogSoftmax", row, axis=1)
    yield w("InstanceNormalization", "x", normal(6), normal(6))
    yield w("InstanceNormalization", wide, normal(2), normal(2), epsilon=1e-3)
    yield w("InstanceNormalization", part, normal(3), normal(3))
    yield w("InstanceNormalization", tokens, normal(20), normal(20))
    yield w("GroupNormalization", "x", normal(3), normal(3), num_groups=3)
    for value, shape in (("x", SHAPE), (turned, (1, 4, 6, 5)), (tokens, (1, 20, 6)),
                         (part, (1, 3, 5, 4))):  # fmt: skip
        for axis in range(1, len(shape)):
            how = shape[axis:]
            yield w("LayerNormalization", value, normal(*how), normal(*how), axis=axis)
    yield w("LayerNormalization", "x", normal(5, 4), axis=2, epsilon=0.1)
    for value in ("x", turned, part):
        yield w("MeanVarianceNormalization", value)
        yield w("LpNormalization", value, axis=1)
        yield w("LpNormalization", value, axis=-1, p=1)
        yield w("LRN", value, size=3, alpha=0.3)
        yield w("LRN", value, size=5, alpha=0.3, beta=0.5, bias=2.0)
    yield w("LayerNormalization", tokens, normal(6))


def products(w: Written) -> Iterator[str]:
    """Matrices by matrices, constants in either place, heads, what broadcasts."""
    tokens = w("Transpose", w("Reshape", "x", w.ints(1, 6, 20)), perm=[0, 2, 1])
    heads = w("Transpose", w("Reshape", tokens, w.ints(1, 20, 2, 3)), perm=[0, 2, 1, 3])
    scores = w("MatMul", heads, w("Transpose", heads, perm=[0, 1, 3, 2]))
    yield scores
    weights = w("Softmax", w("Mul", scores, np.float32(0.3)), axis=-1)
    mixed = w("Transpose", w("MatMul", weights, heads), perm=[0, 2, 1, 3])
    back = w("Reshape", mixed, w.ints(1, 20, 6))
    yield w("Add", back, tokens)
    image = w("Reshape", w("Transpose", back, perm=[0, 2, 1]), w.ints(1, 6, 5, 4))
    yield w("Conv", image, normal(3, 6, 3, 3))
    yield w("MatMul", tokens, normal(6, 7))
    yield w("Relu", w("Add", w("MatMul", tokens, normal(6, 7)), normal(7)))
    yield w("MatMul", normal(3, 20), tokens)
    yield w("MatMul", "x", normal(4, 3))
    yield w("Conv", w("MatMul", "x", normal(4, 3)), normal(2, 6, 1, 1))
    yield w("MatMul", "x", normal(6, 4, 3))
    yield w("MatMul", "x", w("Transpose", "x", perm=[0, 1, 3, 2]))
    yield w("MatMul", "x", w("ReduceMean", "x", w.ints(0, 1, 2), keepdims=0))
    yield w("MatMul", w("ReduceMean", "x", w.ints(0, 1, 3), keepdims=0), "x")
    yield w("MatMul", w("Transpose", tokens, perm=[0, 2, 1]), normal(20, 3))
    yield w("MatMul", tokens, w("Reshape", "x", w.ints(6, 20)))
    yield w("MatMul", w("Slice", "x", w.ints(1), w.ints(4), w.ints(1)), normal(4, 5))
    rows = w("Squeeze", "x", w.ints(0))
    yield w("MatMul", rows, normal(4, 3))
    yield w("Gemm", w("Reshape", "x", w.ints(6, 20)), normal(20, 3), normal(3))


def layers(w: Written) -> Iterator[str]:
    """Convolutions along a line, normalisation that no layer before it took in."""
    line = w("Reshape", "x", w.ints(1, 6, 20))
    yield w("Conv", line, normal(4, 6, 3), normal(4))
    yield w("Relu", w("Conv", line, normal(4, 6, 3), pads=[2, 1], strides=[2], dilations=[2]))
    yield w("Conv", w("Reshape", "x", w.ints(1, 12, 10)), normal(12, 1, 3), group=12)
    again = w("Conv", w("Conv", line, normal(6, 6, 3), pads=[1, 1]), normal(3, 6, 1))
    yield w("Transpose", again, perm=[0, 2, 1])
    yield w("Add", w("Conv", line, normal(6, 6, 1)), line)
    norms = [normal(6), normal(6), normal(6), 1 + normal(6) ** 2]
    yield w("BatchNormalization", w("Relu", "x"), *norms)
    turned = w("Transpose", w("Transpose", "x", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    yield w("BatchNormalization", w("Abs", turned), *norms, epsilon=0.1)
    flat = w("Flatten", w("Slice", "x", w.ints(0), w.ints(2), w.ints(1)))
    yield w("BatchNormalization", flat, *(normal(40) ** 2 + k for k in (0.5, 0, 0, 1)))


def moves(w: Written) -> Iterator[str]:
    """Joins along every axis, slices, splits, permutations, paddings, resizes."""
    turned = w("Transpose", "x", perm=[0, 1, 3, 2])
    tokens = w("Transpose", w("Reshape", "x", w.ints(1, 6, 20)), perm=[0, 2, 1])
    for axis in (1, 2, 3, -1):
        part = w("Slice", "x", w.ints(1), w.ints(3), w.ints(axis))
        yield w("Concat", "x", part, "x", axis=axis)
        yield w("Concat", part, part, axis=axis)
        first = w("Split", "x", outputs=2, axis=axis, num_outputs=2)
        yield w("Concat", f"{first}_1", first, axis=axis)
        yield w("Relu", f"{first}_1")
    yield w("Concat", tokens, tokens, axis=1)
    yield w("Concat", tokens, tokens, axis=2)
    yield w("Concat", normal(1, 1, 6), tokens, axis=1)
    yield w("Concat", "x", np.zeros((1, 2, 5, 4), np.float32), axis=1)
    yield w("Concat", w("Unsqueeze", "x", w.ints(2)), w("Unsqueeze", "x", w.ints(2)), axis=2)
    yield w("Concat", turned, w("Pad", turned, w.ints(0, 0, 0, 1, 0, 0, 0, 1)), axis=3)
    yield w("Concat", w("ReduceMean", "x", w.ints(1)), w("ReduceMax", "x", w.ints(1)), axis=1)
    for perm in ((0, 2, 3, 1), (0, 3, 2, 1), (0, 3, 1, 2), (0, 2, 1, 3), (1, 0, 2, 3)):
        yield w("Transpose", "x", perm=perm)
        yield w("Sigmoid", w("Transpose", "x", perm=perm))
    yield w("Transpose", tokens, perm=[2, 1, 0])
    for mode in ("constant", "reflect", "edge"):
        yield w("Pad", "x", w.ints(0, 0, 1, 2, 0, 0, 0, 1), mode=mode)
        yield w("Tanh", w("Pad", "x", w.ints(0, 1, 0, 0, 0, 2, 0, 0), mode=mode))
    yield w("Pad", "x", w.ints(0, 0, 1, 1, 0, 0, 1, 1), np.float32(0.5))
    yield w("DepthToSpace", w("Concat", "x", tokens_image(w, tokens), axis=1), blocksize=2)
    yield w("SpaceToDepth", w("Pad", "x", w.ints(0, 0, 0, 0, 0, 0, 1, 0)), blocksize=2)
    yield w("Slice", "x", w.ints(-1, 3), w.ints(-9, 0), w.ints(2, 3), w.ints(-1, -2))
    yield w("Gather", "x", w.ints(2, 0, 1), axis=1)
    yield w("Gather", "x", np.int64(1), axis=2)
    yield w("Expand", w("ReduceMean", "x", w.ints(1)), w.ints(1, 3, 5, 4))
    yield w("Tile", "x", w.ints(1, 2, 1, 2))
    yield w("Reshape", "x", w.ints(1, 30, 4))
    yield w("Reshape", "x", w.ints(4, 30))
    yield w("Flatten", "x", axis=2)
    yield w("Flatten", w("Relu", "x"))
    yield w("Mul", w("Flatten", "x"), w("Flatten", w("Sigmoid", "x")))
    yield w("Mul", w("Flatten", "x"), w("Reshape", w("Sigmoid", turned), w.ints(1, 120)))
    yield w("Identity", "x")
    yield w("Dropout", "x")
    for mode in ("nearest", "linear", "cubic"):
        for where in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"):
            how = {"mode": mode, "coordinate_transformation_mode": where}
            yield w("Resize", "x", "", np.array([1, 1, 2, 1.5], np.float32), **how)
            yield w("Resize", "x", "", "", w.ints(1, 6, 3, 7), **how)
    yield w("Resize", "x", "", np.array([1, 1, 0.6, 0.5], np.float32), mode="linear",
            keep_aspect_ratio_policy="stretch", antialias=0)  # fmt: skip
    yield w("Resize", "x", "", np.array([1.5, 2], np.float32), mode="linear", axes=[3, 2])


def tokens_image(w: Written, tokens: str) -> str:
    """Two more channels, of tokens."""
    half = w("Slice", w("Transpose", tokens, perm=[0, 2, 1]), w.ints(2), w.ints(4), w.ints(1))
    return w("Reshape", half, w.ints(1, 2, 5, 4))


def functions(w: Written) -> Iterator[str]:
    """Functions of one value, of views and of images."""
    w.opset = 20
    yield w("Gelu", "x")
    yield w("Gelu", w("Mul", "x", np.float32(4)), approximate="tanh")
    positive = w("Add", w("Abs", "x"), np.float32(0.1))
    for value in ("x", w("Transpose", "x", perm=[0, 2, 3, 1]),
                  w("Slice", "x", w.ints(1), w.ints(4), w.ints(3))):  # fmt: skip
        for op, how in (
            ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {}),
            ("Celu", {"alpha": 0.7}), ("HardSigmoid", {}), ("HardSwish", {}), ("Softplus", {}),
            ("Mish", {}), ("Softsign", {}), ("ThresholdedRelu", {"alpha": 0.3}), ("Floor", {}),
            ("Ceil", {}), ("Round", {}), ("Sign", {}), ("Erf", {}),
            ("Tanh", {}), ("Exp", {}),
        ):  # fmt: skip
            yield w(op, value, **how)
        yield w("Clip", value, np.float32(-0.5), np.float32(0.5))
    ends = [w("DequantizeLinear", np.int8(q), np.float32(0.005), np.int8(1)) for q in (-99, 61)]
    yield w("Clip", "x", *ends)
    for op in ("Log", "Sqrt", "Reciprocal"):
        yield w(op, positive)
    yield w("Round", w("Mul", w("Round", w("Mul", "x", np.float32(4))), np.float32(0.5)))


def sequences(w: Written) -> Iterator[str]:
    """Recurrent layers over the rows of an image, of both directions."""
    rows = w("Reshape", w("Transpose", "x", perm=[2, 0, 1, 3]), w.ints(5, 1, 24))
    zeros = np.zeros((2, 1, 7), np.float32)
    for op, gates, more in (("LSTM", 4, {}), ("GRU", 3, {}), ("RNN", 1, {}),
                            ("GRU", 3, {"linear_before_reset": 1})):  # fmt: skip
        for direction, ways in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            given = [rows, normal(ways, gates * 7, 24) / 5, normal(ways, gates * 7, 7) / 3]
            given += [normal(ways, gates * 14)] if direction != "reverse" else [""]
            if direction == "bidirectional":
                given += ["", zeros if op == "RNN" else normal(2, 1, 7)]
                given += [normal(2, 1, 7)] if op == "LSTM" else []
            outputs = 3 if op == "LSTM" else 2
            how = {"hidden_size": 7, "direction": direction, **more}
            first = w(op, *given, outputs=outputs, **how)
            yield w("Squeeze", w("Gather", first, np.int64(-1), axis=0), w.ints(1))
            for k in range(1, outputs):
                yield w("Transpose", f"{first}_{k}", perm=[1, 0, 2])
            yield w("Relu", w("Transpose", first, perm=[2, 0, 1, 3]))


def test_the_page_lists_every_operator_that_has_a_kernel_and_no_other() -> None:
    page = Path(edgecv.__file__).parents[1] / "docs" / "decisions" / "009-plain-c.md"
    table = [row for row in page.read_text().splitlines() if row.startswith("| ")]
    listed = set(re.findall(r"\b[A-Z]\w+", " ".join(table))) - {"C"}
    every = {s.name for s in onnx.defs.get_all_schemas()}
    known = {name for name in every if hasattr(_Reader, f"_{name.lower()}")}
    assert listed == known - {"Constant", "QuantizeLinear", "DequantizeLinear"}


def test_an_operator_of_another_domain_is_refused_by_name() -> None:
    w = Written()
    w.ends(w("Relu", "x"))
    model = w.model()
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedError, match=r"Relu0: Relu has no C kernel"):
        read(model, "c")


def test_root_mean_squares(tmp_path: Path) -> None:
    w = Written()
    w.opset = 23
    rows = w("Transpose", w("Reshape", "x", w.ints(1, 6, 20)), perm=[0, 2, 1])
    groups = w("Reshape", "x", w.ints(2, 3, 20))
    w.ends(w("RMSNormalization", rows, normal(6), epsilon=0.1),
           w("RMSNormalization", "x", normal(5, 4), axis=2), w("RMSNormalization", "x", normal(4)),
           w("RMSNormalization", groups, normal(3, 20), axis=1))  # fmt: skip
    compared(w, tmp_path)


@pytest.mark.parametrize(
    "made", [broadcasts, sequences, along_axes, products, layers, moves, functions]
)
def test_operators(made: Any, tmp_path: Path) -> None:
    w = Written()
    w.ends(*made(w))
    compared(w, tmp_path)
