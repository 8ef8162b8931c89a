"""Every operator of the table gives what ONNX Runtime gives with its optimisations off."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import UnsupportedError
from edgecv.models.importing import onnx_to_torch
from edgecv.models.importing.operators import OPERATORS
from tests.models.test_importing import CASES as BASIC

RNG = np.random.default_rng(1)
SHAPE = (1, 4, 6, 7)
IMAGE = RNG.standard_normal(SHAPE).astype("f4") * 3


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def model_of(op, inputs, attrs, shape=SHAPE, opset=18, outputs=1, kinds=None):
    """One node over the image, "x", which is first where it is not named, and constants."""
    constants, names = [], []
    for k, value in enumerate(["x", *inputs] if "x" not in map(str, inputs) else inputs):
        named = isinstance(value, str) or value is None
        names.append((value or "") if named else f"c{k}")
        if not named:
            constants.append(numpy_helper.from_array(np.asarray(value), f"c{k}"))
    made = [f"y{k}" for k in range(outputs)]
    kinds = kinds or [TensorProto.FLOAT] * outputs
    graph = helper.make_graph(
        [helper.make_node(op, names, made, name="the_node", **attrs)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, k, None) for n, k in zip(made, kinds, strict=True)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(model, path, shape=SHAPE):
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.resize(IMAGE, shape)
    expected = session.run(None, {"x": x})
    with torch.no_grad():
        got = onnx_to_torch(path)(torch.from_numpy(x))
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert tuple(one.shape) == other.shape
        np.testing.assert_allclose(one.numpy(), other, atol=2e-5, rtol=2e-5)


def case(*inputs, **how):
    """Inputs behind the image; capital names are of the model, the rest attributes."""
    return inputs, how


W1, R1, B1 = normal(1, 12, 7), normal(1, 12, 3), normal(1, 24)
W2, R2, B2 = normal(2, 12, 7), normal(2, 12, 3), normal(2, 24)
GRID = "coordinate_transformation_mode"
INT64 = TensorProto.INT64
SYMMETRIC = {GRID: "half_pixel_symmetric", "OPSET": 19}
RNN = {"hidden_size": 3, "SHAPE": (6, 1, 7)}

CASES = {
    # activations
    "Celu": [case(), case(alpha=0.3)],
    "Clip": [case(None, np.float32(2))],
    "Elu": [case(), case(alpha=0.4)],
    "Gelu": [case(OPSET=20), case(approximate="tanh", OPSET=20)],
    "LogSoftmax": [case(), case(axis=1), case(axis=1, OPSET=11), case(axis=0, OPSET=11)],
    "Mish": [case()],
    "PRelu": [case(normal(4, 6, 7)), case(normal(7))],
    "Selu": [case(), case(alpha=1.2, gamma=0.9)],
    "Shrink": [case(lambd=0.7), case(lambd=0.7, bias=0.7)],
    "Softmax": [case(axis=2, OPSET=11), case(axis=-3)],
    "Softplus": [case()],
    "Softsign": [case()],
    "Swish": [],
    "ThresholdedRelu": [case(), case(alpha=0.2)],
    # value by value
    "Abs": [case()],
    "Add": [case(normal(1, 4, 6, 7)), case(normal(7, ))],
    "And": [],
    "CastLike": [case(np.float32(1))],
    "Ceil": [case()],
    "Cos": [case()],
    "Div": [case(np.float32(2), "x")],
    "Equal": [],
    "Erf": [case()],
    "Exp": [case()],
    "Floor": [case()],
    "Greater": [],
    "GreaterOrEqual": [],
    "Less": [],
    "LessOrEqual": [],
    "Log": [],
    "Max": [case(normal(4, 1, 1)), case(np.float32(0.3), normal(7)), case()],
    "Mean": [case(normal(4, 1, 1), normal(1))],
    "Min": [case(normal(4, 1, 1)), case(np.float32(0.3))],
    "Mod": [case(np.float32(0.7), fmod=1)],
    "Neg": [case()],
    "Not": [],
    "Or": [],
    "Pow": [case(np.float32(2)), case(np.array([3], "f4")), case(np.float32(2), "x")],
    "Reciprocal": [case()],
    "Round": [case()],
    "Sign": [case()],
    "Sin": [case()],
    "Sqrt": [],
    "Sub": [case(np.float32(1), "x"), case(normal(6, 1), "x")],
    "Sum": [case(normal(4, 1, 1), np.float32(1)), case()],
    "Where": [],
    "Xor": [],
    # over axes
    "ArgMax": [case(axis=1, KIND=INT64), case(axis=-1, keepdims=0, KIND=INT64)],
    "ArgMin": [case(axis=2, KIND=INT64)],
    "CumSum": [case(np.int64(1)), case(np.int64(-1), reverse=1)],
    "Einsum": [
        case(normal(7, 3), equation="bchw,wo->bcho"),
        case(normal(1, 4, 5, 7), equation="bnij,bnkj->bnik"),
    ],
    "GroupNormalization": [
        case(normal(4), normal(4), num_groups=2, epsilon=0.01, OPSET=21),
    ],
    "InstanceNormalization": [case(normal(4), normal(4)), case(normal(4), normal(4), epsilon=0.3)],
    "LRN": [case(size=3), case(size=5, alpha=0.5, beta=0.6, bias=2.0), case(size=1)],
    "LayerNormalization": [
        case(normal(7), normal(7)),
        case(normal(6, 7), axis=-2, epsilon=0.1),
        case(normal(7), normal(7), axis=2),
        case(normal(4, 6, 7), normal(4, 6, 7), axis=1),
    ],
    "LpNormalization": [case(), case(axis=1, p=1)],
    "MeanVarianceNormalization": [case(), case(axes=[2, 3])],
    "RMSNormalization": [case(normal(7), OPSET=23), case(normal(6, 7), axis=2, OPSET=23)],
    **{
        f"Reduce{kind}": [
            case(ints(2, 3)),
            case(ints(-1), keepdims=0),
            case(),
            case(keepdims=0),
            case(noop_with_empty_axes=1),
            case(axes=[1, 2], OPSET=12),
        ]
        for kind in ("L1", "L2", "LogSumExp", "Max", "Min", "Prod", "Sum", "SumSquare")
    },
    "ReduceLogSum": [],
    "ReduceMean": [case(ints(1)), case(ints(0, 3), keepdims=0)],
    "TopK": [
        case(ints(3), OUTPUTS=2, KIND=(TensorProto.FLOAT, INT64)),
        case(ints(2), axis=1, largest=0, OUTPUTS=2, KIND=(TensorProto.FLOAT, INT64)),
    ],
    # moving values
    "Concat": [case("x", normal(1, 4, 6, 7), axis=2)],
    "DepthToSpace": [case(blocksize=2), case(blocksize=2, mode="CRD")],
    "Expand": [case(ints(1)), case(ints(3, 1, 4, 1, 1)), case(ints(2, 4, 6, 7))],
    "Gather": [
        case(np.int64(2), axis=1),
        case(np.int64(-1), axis=3),
        case(ints(3, 0, 1), axis=1),
        case(ints(1, 3, 5), axis=2),
        case(ints(-1, -3), axis=3),
        case(np.array([[0, 2], [1, 1]]), axis=1),
        case(np.array([[0, 1]]), axis=-1),
    ],
    "GatherElements": [case(RNG.integers(0, 6, (1, 4, 3, 7)), axis=2)],
    "Pad": [
        case(ints(0, 0, 1, 2, 0, 0, 2, 3), mode="reflect"),
        case(ints(0, 0, 0, 1, 0, 0, 0, 1), mode="reflect"),
        case(ints(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
        case(ints(0, 0, 1, 2, 0, 0, 3, 0), mode="wrap", OPSET=19),
        case(ints(0, 0, -1, 1, 0, 0, 1, -2)),
    ],
    "Slice": [
        case(ints(1), ints(3), ints(1)),
        case(ints(0, 1), ints(-1, 1000), ints(2, 3), ints(1, 2)),
        case(ints(-1), ints(-1000), ints(3), ints(-1)),
        case(ints(4), ints(0), ints(-2), ints(-2)),
        case(ints(0, 0, 1), ints(1, 2, 6)),
    ],
    "SpaceToDepth": [case(blocksize=2, SHAPE=(1, 3, 4, 6))],
    "Split": [
        case(axis=1, OUTPUTS=2, num_outputs=2),
        case(ints(1, 3, 3), axis=3, OUTPUTS=3),
        case(axis=-1, OUTPUTS=3, num_outputs=3),
        case(axis=2, split=[2, 4], OUTPUTS=2, OPSET=11),
    ],
    "Tile": [case(ints(1, 2, 1, 3))],
    "Unsqueeze": [case(ints(0, -1))],
    # with weights
    "AveragePool": [
        case(kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
        case(kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1),
        case(kernel_shape=[2, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    ],
    "Conv": [
        case(normal(5, 4, 3), normal(5), SHAPE=(1, 4, 9), pads=[1, 0], strides=[2]),
        case(normal(5, 4, 3), SHAPE=(1, 4, 9), auto_pad="SAME_UPPER"),
    ],
    "ConvTranspose": [
        case(normal(4, 3, 3), SHAPE=(1, 4, 9), strides=[2], pads=[1, 1]),
        case(normal(4, 3, 3, 3), normal(3), strides=[2, 2], pads=[1, 1, 0, 0]),
        case(normal(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        case(normal(4, 3, 3, 3), strides=[2, 3], auto_pad="SAME_LOWER"),
        case(normal(4, 3, 4, 4), strides=[2, 2], output_shape=[12, 14]),
        case(normal(4, 3, 3, 3), strides=[2, 2], pads=[0, 1, 1, 1], output_padding=[1, 1]),
        case(normal(4, 2, 3, 3), group=2, dilations=[2, 1], strides=[2, 2]),
    ],
    "GRU": [
        case(normal(1, 9, 7), normal(1, 9, 3), normal(1, 18), linear_before_reset=1, **RNN),
        case(normal(2, 9, 7), normal(2, 9, 3), normal(2, 18), linear_before_reset=1,
             direction="bidirectional", OUTPUTS=2, **RNN),
        case(normal(1, 9, 7), normal(1, 9, 3), normal(1, 18), OUTPUTS=2, **RNN),
        case(normal(2, 9, 7), normal(2, 9, 3), direction="bidirectional", OUTPUTS=2, **RNN),
    ],
    "LSTM": [
        case(W1, R1, B1, OUTPUTS=2, **RNN),
        case(W1, R1, **RNN),
        case(W1, R1, B1, direction="reverse", OUTPUTS=2, **RNN),
        case(W2, R2, B2, direction="bidirectional", OUTPUTS=2, **RNN),
    ],
    "RNN": [case(normal(1, 3, 7), normal(1, 3, 3), normal(1, 6), **RNN)],
    "MatMul": [
        case(normal(4, 6), "x"),
        case("x", normal(1, 4, 7, 5)),
        case("x", normal(1, 1, 7, 5)),
    ],
    "MaxPool": [
        case(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
        case(kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    ],
    "Resize": [
        case(None, None, ints(1, 4, 9, 5), mode="nearest"),
        case(None, np.array([1, 1, 0.6, 1.7], "f4"), mode="nearest", nearest_mode="ceil"),
        case(None, np.array([1, 1, 1.6, 1.4], "f4"), mode="linear"),
        case(None, np.array([1, 1, 2, 3], "f4"), mode="linear", **{GRID: "asymmetric"}),
        case(None, None, ints(1, 4, 12, 14), mode="cubic"),
        case(None, None, ints(1, 4, 3, 14), mode="linear", **SYMMETRIC),
        case(None, None, ints(1, 4, 12, 14), mode="cubic", **{GRID: "asymmetric"}),
        case(None, None, ints(1, 4, 3, 4), mode="linear", antialias=1),
        case(None, np.array([1, 1, 1.6, 1.4], "f4"), mode="cubic", cubic_coeff_a=-0.5),
        case(None, None, ints(9, 9), axes=[2, 3], mode="nearest", **{GRID: "align_corners"}),
    ],
}  # fmt: skip


def test_every_operator_of_the_table_has_a_case():
    assert {*CASES, *BASIC, "Gemm"} == set(OPERATORS)


@pytest.mark.parametrize(
    ("op", "inputs", "how"),
    [(op, *one) for op, cases in CASES.items() for one in cases],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_operator(tmp_path, op, inputs, how):
    how = dict(how)
    shape, opset = how.pop("SHAPE", SHAPE), how.pop("OPSET", 18)
    outputs, kinds = how.pop("OUTPUTS", 1), how.pop("KIND", None)
    kinds = list(kinds) if isinstance(kinds, tuple) else [kinds] if kinds else None
    check(model_of(op, inputs, how, shape, opset, outputs, kinds), tmp_path / "m.onnx", shape)


def chain(nodes, constants=(), opset=18, kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        [helper.make_node(op, a, b, **(c[0] if c else {})) for op, a, b, *c in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(nodes[-1][2][0], kind, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("op", ["Log", "Sqrt", "ReduceLogSum"])
def test_operators_of_positive_values(tmp_path, op):
    nodes = [("Abs", ["x"], ["a"]), ("Add", ["a", "half"], ["p"]), (op, ["p"], ["y"])]
    check(chain(nodes, {"half": np.float32(0.5)}), tmp_path / "m.onnx")


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_choose(tmp_path, op):
    nodes = [
        ("Round", ["x"], ["r"]),
        (op, ["r", "one"], ["t"]),
        ("Not", ["t"], ["n"]),
        ("Where", ["n", "x", "one"], ["w"]),
        ("Cast", ["t"], ["f"], {"to": TensorProto.FLOAT}),
        ("Sub", ["w", "f"], ["y"]),
    ]
    check(chain(nodes, {"one": np.float32(1)}), tmp_path / "m.onnx")


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_truth_values(tmp_path, op):
    nodes = [
        ("Greater", ["x", "zero"], ["a"]),
        ("Less", ["x", "one"], ["b"]),
        (op, ["a", "b"], ["t"]),
        ("Where", ["t", "zero", "x"], ["y"]),
    ]
    check(chain(nodes, {"zero": np.float32(0), "one": np.float32(1)}), tmp_path / "m.onnx")


def test_swish_of_opset_24(tmp_path):
    """ONNX Runtime has no kernel for it here: x sigmoid(alpha x), written out."""
    graph = chain([("Swish", ["x"], ["y"], {"alpha": 1.5})], opset=24)
    onnx.save(graph, tmp_path / "m.onnx")
    x = torch.from_numpy(IMAGE)
    torch.testing.assert_close(onnx_to_torch(tmp_path / "m.onnx")(x), x * (1.5 * x).sigmoid())


def test_an_argmax_is_looked_up(tmp_path):
    """Integers flow: the embedding of the best channel."""
    nodes = [
        ("ArgMax", ["x"], ["i"], {"axis": 1, "keepdims": 0}),
        ("Gather", ["table", "i"], ["y"], {"axis": 0}),
    ]
    check(chain(nodes, {"table": normal(4, 3)}), tmp_path / "m.onnx")


def test_integers_are_divided_towards_zero(tmp_path):
    nodes = [
        ("Cast", ["x"], ["i"], {"to": TensorProto.INT64}),
        ("Div", ["i", "two"], ["d"]),
        ("Cast", ["d"], ["y"], {"to": TensorProto.FLOAT}),
    ]
    check(chain(nodes, {"two": np.int64(2)}), tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", range(24))
def test_pooling_of_any_geometry(tmp_path, seed):
    """Uneven pads, ceil_mode and counted padding; the same as ONNX Runtime, or refused."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(2, 5, 2)
    how = {
        "kernel_shape": kernel.tolist(),
        "strides": rng.integers(1, 4, 2).tolist(),
        "pads": rng.integers(0, np.concatenate([kernel, kernel])).tolist(),
        "ceil_mode": int(rng.integers(2)),
    }
    if seed % 2:
        how["count_include_pad"] = int(rng.integers(2))
    check(model_of("AveragePool" if seed % 2 else "MaxPool", [], how), tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", range(24))
def test_resizing_by_any_grid(tmp_path, seed):
    rng = np.random.default_rng(seed)
    how = {
        "mode": str(rng.choice(["nearest", "linear", "cubic"])),
        "coordinate_transformation_mode": str(
            rng.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
        ),
    }
    if how["mode"] == "nearest":
        names = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        how["nearest_mode"] = str(rng.choice(names))
    sizes = [1, 4, *rng.integers(2, 17, 2).tolist()]
    check(model_of("Resize", [None, None, ints(*sizes)], how), tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", range(16))
def test_transposed_convolutions_of_any_geometry(tmp_path, seed):
    rng = np.random.default_rng(seed)
    kernel, strides = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    groups = int(rng.choice([1, 2, 4]))
    how = {
        "strides": strides.tolist(),
        "dilations": rng.integers(1, 3, 2).tolist(),
        "group": groups,
        "pads": rng.integers(0, 2, 4).tolist(),
        "output_padding": rng.integers(0, strides).tolist(),
    }
    weight = rng.standard_normal((4, 2, *kernel)).astype("f4")
    check(model_of("ConvTranspose", [weight, normal(2 * groups)], how), tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", range(16))
def test_slices_of_any_step(tmp_path, seed):
    rng = np.random.default_rng(seed)
    axes = rng.choice(4, 2, replace=False)
    steps = [int(rng.choice([-3, -2, -1, 1, 2, 3])) for _ in axes]
    bounds = [(0, 1000) if s > 0 else (-1, -1000) for s in steps]
    starts, ends = (ints(*side) for side in zip(*bounds, strict=True))
    check(model_of("Slice", [starts, ends, axes, ints(*steps)], {}), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("op", "inputs", "how", "says"),
    [
        ("Slice", [ints(3), ints(3), ints(1)], {}, "nothing is left"),
        ("Resize", [None, None, ints(1, 8, 6, 7)], {"mode": "nearest"}, "batch or channels"),
        ("Gather", [ints(9)], {"axis": 1}, "go beyond an axis of 4"),
        ("CumSum", [np.int64(1)], {"exclusive": 1}, "leaves each value out"),
        ("Shrink", [], {"lambd": 0.5, "bias": 0.2}, "bias 0.2"),
    ],
)
def test_what_is_not_read_is_said_of_the_node(tmp_path, op, inputs, how, says):
    onnx.save(model_of(op, inputs, how), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=says) as refused:
        onnx_to_torch(tmp_path / "m.onnx")
    assert f"node 'the_node' ({op})" in refused.value.where
