"""One-operator files in every spelling: the canonical form against ONNX Runtime as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.canonical import canonical
from edgecv.graphs.onnx.draft import attributes
from edgecv.methods.export._proof import learn_shapes

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model(
    nodes: list[Any],
    shape: tuple[int, ...],
    opset: int = 18,
    ir: int = 8,
    as_inputs: bool = False,
    **held: np.ndarray,
) -> Any:
    """x → y; held: initializers by name. as_inputs: they are inputs too, as IR 3 has it."""
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if as_inputs:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    domains = {n.domain for n in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def answer(made: Any, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def rewritten(before: Any, shape: tuple[int, ...], near: float = 1e-5) -> Any:
    """The canonical form, after comparing what both answer."""
    after = canonical(before, "net.onnx", learn_shapes)
    x = normal(*shape)
    a, b = answer(before, x), answer(after, x)
    assert a.shape == b.shape
    np.testing.assert_allclose(b, a, rtol=near, atol=near * max(1.0, float(np.abs(a).max())))
    assert next(o.version for o in after.opset_import if o.domain == "") >= 18
    return after


def ops(made: Any) -> list[str]:
    return [n.op_type for n in made.graph.node]


# --- Gemm


@pytest.mark.parametrize("alpha", [1.0, 0.25])
@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("bias", [(), (1,), (5,), (1, 5), (1, 1), None])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm_keeps_its_factors_in_its_weights(
    alpha: float, beta: float, bias: tuple[int, ...] | None, turned: int
) -> None:
    held = {"w": normal(*((5, 4) if turned else (4, 5)))}
    if bias is not None:
        held["b"] = np.asarray(normal(*bias), np.float32)
    node = helper.make_node(
        "Gemm", ["x", *held], ["y"], alpha=alpha, beta=beta, transB=turned, transA=turned
    )
    shape = (4, 1) if turned else (1, 4)
    after = rewritten(model([node], shape, **held), shape)
    (gemm,) = [n for n in after.graph.node if n.op_type == "Gemm"]
    assert set(attributes(gemm)) <= {"transB"}
    sizes = {t.name: tuple(t.dims) for t in after.graph.initializer}
    if bias is not None:
        assert sizes[gemm.input[2]] == (5,)


def test_a_gemm_with_a_bias_for_every_row_becomes_a_product_and_a_sum() -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=3.0, beta=0.5)
    after = rewritten(model([node], (3, 4), w=normal(4, 5), b=normal(3, 5)), (3, 4))
    assert ops(after) == ["Gemm", "Add"]


def test_a_weight_that_is_read_both_ways_becomes_two() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transB=1),
        helper.make_node("Gemm", ["a", "w"], ["b"]),
        helper.make_node("Gemm", ["b", "w"], ["c"], transB=1),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    after = rewritten(model(nodes, (1, 5), w=normal(5, 5)), (1, 5))
    reads = [n.input[1] for n in after.graph.node]
    assert reads[0] == reads[2] == "w"
    assert len(set(reads)) == 3


def test_a_gemm_of_two_computed_matrices_becomes_a_matmul() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Gemm", ["x", "r", "r"], ["y"], alpha=2.0, beta=3.0, transB=1),
    ]
    after = rewritten(model(nodes, (4, 4)), (4, 4))
    assert "Gemm" not in ops(after)


# --- windows and pools


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("size", [(7, 9), (2, 2), (1, 5)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 1, 1), (3, 1, 2)])
def test_a_convolution_says_its_pads(
    auto: str, size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    if not auto.startswith("SAME") and min(size) < (kernel - 1) * dilation + 1:
        pytest.skip("no window fits")
    if auto.startswith("SAME") and dilation > 1:
        pytest.skip("ONNX Runtime has no such kernel")
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], auto_pad=auto, strides=[stride] * 2, dilations=[dilation] * 2,
        group=2,
    )  # fmt: skip
    shape = (1, 4, *size)
    after = rewritten(model([node], shape, w=normal(6, 2, kernel, kernel)), shape)
    given = attributes(after.graph.node[0])
    assert set(given) == {"dilations", "group", "kernel_shape", "pads", "strides"}


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
def test_a_pool_says_its_pads(op: str, auto: str) -> None:
    node = helper.make_node(op, ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], auto_pad=auto)
    after = rewritten(model([node], (1, 3, 6, 7)), (1, 3, 6, 7))
    assert "auto_pad" not in attributes(after.graph.node[0])


@pytest.mark.parametrize("opset", [19, 22])
def test_a_pool_of_a_late_opset_says_no_dilations_of_one(opset: int) -> None:
    """ONNX Runtime's int8 kernel refuses the attribute that such opsets know."""
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[1, 1])
    after = rewritten(model([node], (1, 3, 6, 7), opset), (1, 3, 6, 7))
    assert "dilations" not in attributes(after.graph.node[0])


@pytest.mark.parametrize("pads", [(0, 0, 1, 2, 0, 0, 3, 0), (0, 0, 0, 1, 0, 0, 0, 1), (0,) * 8])
@pytest.mark.parametrize("opset", [18, 19])
def test_pads_that_go_round_are_slices_and_joins(pads: tuple[int, ...], opset: int) -> None:
    x = normal(1, 3, 4, 5)
    node = helper.make_node("Pad", ["x", "p"], ["y"], mode="wrap")
    after = canonical(model([node], x.shape, opset, p=np.array(pads)), "net.onnx", learn_shapes)
    assert "Pad" not in ops(after)
    sides = list(zip(pads[:4], pads[4:], strict=True))
    np.testing.assert_array_equal(answer(after, x), np.pad(x, sides, mode="wrap"))


def test_pads_that_go_round_twice_are_refused_by_name() -> None:
    node = helper.make_node("Pad", ["x", "p"], ["y"], "circle", mode="wrap")
    made = model([node], (1, 3, 4, 4), p=np.array((0, 0, 5, 0, 0, 0, 0, 0)))
    with pytest.raises(UnsupportedError, match=r"'circle' \(Pad\): goes round 5 and 0 values of 4"):
        canonical(made, "net.onnx", learn_shapes)


@pytest.mark.parametrize("opset", [14, 18])
def test_what_reads_a_pool_that_rounds_up_knows_its_true_size(opset: int) -> None:
    """onnx's inference counts a window that begins behind the image: 5 columns where 4 come out."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2],
                         pads=[1, 1, 0, 1], ceil_mode=1),
        helper.make_node("Conv", ["a", "w"], ["b"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Conv", ["a", "w"], ["c"], auto_pad="SAME_LOWER"),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("GlobalMaxPool", ["d"], ["e"]),
        helper.make_node("Add", ["b", "e"], ["y"]),
    ]  # fmt: skip
    before = model(nodes, (1, 3, 6, 7), opset, w=normal(3, 3, 3, 3))
    after = rewritten(before, (1, 3, 6, 7))
    assert not after.graph.value_info
    ort.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 0, 1]])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("ceil", [0, 1])
def test_a_dilated_average_becomes_a_convolution(
    include: int, pads: list[int], stride: int, ceil: int
) -> None:
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[3, 3], dilations=[2, 2], strides=[stride] * 2,
        pads=pads, count_include_pad=include, ceil_mode=ceil,
    )  # fmt: skip
    x = normal(1, 2, 8, 9)
    after = canonical(model([node], x.shape, 19), "net.onnx", learn_shapes)
    assert "AveragePool" not in ops(after)
    got = answer(after, x)
    ours = np.pad(np.ones_like(x), [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])],
                  constant_values=float(include))  # fmt: skip
    sums = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2] + 9), (pads[1], pads[3] + 9)])
    counts = np.pad(ours, [(0, 0), (0, 0), (0, 9), (0, 9)])
    for i, j in np.ndindex(got.shape[2:]):
        window = (..., slice(i * stride, i * stride + 5, 2), slice(j * stride, j * stride + 5, 2))
        want = sums[window].sum((2, 3)) / counts[window].sum((2, 3))
        np.testing.assert_allclose(got[:, :, i, j], want, rtol=1e-5, atol=1e-5)
    if not ceil:
        rows = [(n + a + b - 5) // stride + 1
                for n, a, b in zip((8, 9), pads[:2], pads[2:], strict=True)]  # fmt: skip
        assert got.shape[2:] == tuple(rows)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 2, 0]])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 3), (4, 3), (2, 3)])
@pytest.mark.parametrize("size", [(8, 9), (6, 7)])
def test_a_pool_that_rounds_up_becomes_one_with_pads(
    op: str, include: int, pads: list[int], kernel: int, stride: int, size: tuple[int, int]
) -> None:
    if max(pads) >= kernel or (op == "MaxPool" and include):
        pytest.skip("no such pool")
    more = {"count_include_pad": include} if op == "AveragePool" else {}
    node = helper.make_node(
        op, ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, ceil_mode=1,
        **more,
    )  # fmt: skip
    before = model([node], (1, 2, *size))
    after = canonical(before, "net.onnx", learn_shapes)
    x = normal(1, 2, *size)
    want = pooled(x, op, kernel, stride, pads, bool(include))
    np.testing.assert_allclose(answer(after, x), want, rtol=1e-5, atol=1e-5)
    assert all("ceil_mode" not in attributes(n) for n in after.graph.node)


def pooled(x: np.ndarray, op: str, k: int, s: int, pads: list[int], include: bool) -> np.ndarray:
    """What ONNX says: windows begin in the image or its begin pads; its own pads are counted."""
    top, left, bottom, right = pads
    high, wide = x.shape[2:]
    sides = []
    for n, begin, end in ((high, top, bottom), (wide, left, right)):
        out = -(-(n + begin + end - k) // s) + 1
        sides.append(out - 1 if (out - 1) * s >= n + begin else out)
    y = np.zeros((*x.shape[:2], *sides), np.float64)
    for i in range(sides[0]):
        for j in range(sides[1]):
            a, b = i * s - top, j * s - left
            part = x[:, :, max(a, 0) : min(a + k, high), max(b, 0) : min(b + k, wide)]
            if op == "MaxPool":
                y[:, :, i, j] = part.max((2, 3))
                continue
            rows = min(a + k, high + bottom) - a if include else part.shape[2]
            columns = min(b + k, wide + right) - b if include else part.shape[3]
            y[:, :, i, j] = part.sum((2, 3), dtype=np.float64) / (rows * columns)
    return y


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"output_padding": [1, 1]},
        {"output_padding": [1, 0], "pads": [1, 0, 0, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "output_padding": [1, 1]},
        {"output_shape": [9, 11]},
        {"output_shape": [10, 10], "auto_pad": "SAME_LOWER"},
        {"output_shape": [8, 9], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution_says_its_pads(more: dict[str, Any], group: int) -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], group=group, **more
    )
    shape = (1, 4, 4, 5)
    before = model([node], shape, w=normal(4, 3, 3, 3), b=normal(3 * group))
    after = rewritten(before, shape)
    given = attributes(after.graph.node[0])
    assert not {"auto_pad", "output_shape"} & set(given)
    assert {"pads", "output_padding", "dilations", "group", "strides"} <= set(given)


# --- old opsets


def upsample(mode: str, scale: float, opset: int) -> Any:
    scales = [1.0, 1.0, scale, scale]
    if opset == 7:
        return model(
            [helper.make_node("Upsample", ["x"], ["y"], mode=mode, scales=scales)],
            (1, 2, 8, 10), 7, 3,
        )  # fmt: skip
    op = "Upsample" if opset == 9 else "Resize"
    node = helper.make_node(op, ["x", "s"], ["y"], mode=mode)
    held = {"s": np.array(scales, np.float32)}
    return model([node], (1, 2, 8, 10), opset, 4 if opset == 9 else 5, **held)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("opset", "scale"), [(7, 2.0), (9, 3.0), (9, 1.5), (10, 2.0), (10, 0.5), (10, 0.25), (10, 0.6)]
)
def test_old_resizes_stay_asymmetric(mode: str, opset: int, scale: float) -> None:
    after = rewritten(upsample(mode, scale, opset), (1, 2, 8, 10))
    assert ops(after)[-1] == "Resize"


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_resizes_inside_a_network_stay_asymmetric(mode: str) -> None:
    """The converter gives what is no output of the graph a new name."""
    nodes = [helper.make_node("Upsample", ["x", "s"], ["u"], mode=mode),
             helper.make_node("Relu", ["u"], ["y"])]  # fmt: skip
    held = {"s": np.array([1, 1, 3, 3], np.float32)}
    rewritten(model(nodes, (1, 2, 8, 10), 9, 4, **held), (1, 2, 8, 10))


# --- some axes


@pytest.mark.parametrize("given", [
    {"scales": [2.0, 1.5]}, {"sizes": [9, 12]},
    {"sizes": [24, 20], "keep_aspect_ratio_policy": "not_larger"},
    {"sizes": [24, 20], "keep_aspect_ratio_policy": "not_smaller"},
])  # fmt: skip
def test_a_resize_of_some_axes_is_one_of_all(given: dict[str, Any]) -> None:
    more = dict(given)
    name = "scales" if "scales" in more else "sizes"
    value = np.array(more.pop(name), np.float32 if name == "scales" else np.int64)
    reads = ["x", "", "v"] if name == "scales" else ["x", "", "", "v"]
    node = helper.make_node("Resize", reads, ["y"], axes=[2, 3], mode="linear", **more)
    after = rewritten(model([node], (1, 2, 8, 10), v=value), (1, 2, 8, 10))
    assert not {"axes", "keep_aspect_ratio_policy"} & {*attributes(after.graph.node[-1])}
    assert all(list(t.dims) in ([0], [4]) for t in after.graph.initializer)


def test_a_ratio_that_leaves_parts_of_pixels_is_refused_by_name() -> None:
    node = helper.make_node("Resize", ["x", "", "", "v"], ["y"], axes=[2, 3], mode="linear",
                            keep_aspect_ratio_policy="not_larger", name="resize")  # fmt: skip
    before = model([node], (1, 2, 8, 10), v=np.array([9, 99], np.int64))
    with pytest.raises(UnsupportedError, match=r"'resize' .*keeps the ratio"):
        canonical(before, "net.onnx", learn_shapes)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_pads_of_some_axes_are_pads_of_all(mode: str) -> None:
    node = helper.make_node("Pad", ["x", "p", "", "a"], ["y"], mode=mode)
    held = {"p": np.array([1, 2, 3, 0], np.int64), "a": np.array([-1, 2], np.int64)}
    opset = 19 if mode == "wrap" else 18
    after = rewritten(model([node], (1, 2, 8, 10), opset, **held), (1, 2, 8, 10))
    assert all(len(n.input) < 4 for n in after.graph.node if n.op_type == "Pad")


def test_a_mean_variance_normalization_says_its_axes() -> None:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"])
    after = rewritten(model([node], (1, 2, 8, 10)), (1, 2, 8, 10), near=1e-4)
    assert attributes(after.graph.node[0])["axes"] == [0, 2, 3]


OLD: dict[str, Callable[[], Any]] = {
    "batch norm": lambda: model(
        [helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y"], epsilon=1e-3, momentum=0.8)],
        (1, 4, 3, 3), 7, 3, True,
        g=normal(4), b=normal(4), m=normal(4), v=RNG.uniform(0.5, 2, 4).astype(np.float32),
    ),
    "clip": lambda: model(
        [helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], (1, 4, 3, 3), 7, 3
    ),
    "pad": lambda: model(
        [helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5)],
        (1, 4, 3, 3), 9, 4,
    ),
    "slice": lambda: model(
        [helper.make_node("Slice", ["x"], ["y"], axes=[2], starts=[1], ends=[3])],
        (1, 4, 5, 3), 9, 4,
    ),
    "softmax over what follows its axis": lambda: model(
        [helper.make_node("Softmax", ["x"], ["y"], axis=1)], (1, 4, 3, 3), 11, 6
    ),
    "dropout": lambda: model(
        [helper.make_node("Dropout", ["x"], ["d"], ratio=0.5),
         helper.make_node("Relu", ["d"], ["y"])],
        (1, 4, 3, 3), 9, 4,
    ),
    "sum over axes": lambda: model(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], (1, 4, 3, 3), 11, 6
    ),
    "layer norm before it was ONNX": lambda: model(
        [helper.make_node("LayerNormalization", ["x", "g"], ["y"], axis=-1)], (1, 4, 3, 3), 13, 7,
        g=normal(3),
    ),
    "weights that are no inputs in IR 3": lambda: model(
        [helper.make_node("Conv", ["x", "w"], ["y"])], (1, 4, 3, 3), 8, 3, True,
        w=normal(2, 4, 1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_opsets_become_18(name: str) -> None:
    before = OLD[name]()
    shape = tuple(d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim)
    del before.graph.input[1:]
    rewritten(before, shape)


# --- what an optimised file holds


CONTRIB: dict[str, Callable[[], Any]] = {
    "FusedConv": lambda: model(
        [helper.make_node("FusedConv", ["x", "w", "b"], ["y"], domain="com.microsoft",
                          activation="HardSigmoid", activation_params=[0.3, 0.4])],
        (1, 4, 5, 5), w=normal(4, 4, 3, 3), b=normal(4),
    ),
    "FusedConv with a sum": lambda: model(
        [helper.make_node("FusedConv", ["x", "w", "b", "x"], ["y"], domain="com.microsoft",
                          activation="Clip", activation_params=[-0.5, 0.5], pads=[1, 1, 1, 1])],
        (1, 4, 5, 5), w=normal(4, 4, 3, 3), b=normal(4),
    ),
    "FusedGemm": lambda: model(
        [helper.make_node("FusedGemm", ["x", "w", "b"], ["y"], domain="com.microsoft", alpha=0.5,
                          activation="LeakyRelu", activation_alpha=0.2)],
        (1, 4), w=normal(4, 5), b=normal(5),
    ),
    "FusedMatMul": lambda: model(
        [helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft", alpha=0.5,
                          transB=1)],
        (2, 3, 4),
    ),
    "Gelu": lambda: model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], (2, 3)),
    "BiasGelu": lambda: model(
        [helper.make_node("BiasGelu", ["x", "b"], ["y"], domain="com.microsoft")], (2, 3),
        b=normal(3),
    ),
    "FastGelu": lambda: model(
        [helper.make_node("FastGelu", ["x", "b"], ["y"], domain="com.microsoft")], (2, 3),
        b=normal(3),
    ),
    "QuickGelu": lambda: model(
        [helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft", alpha=1.5)], (2, 3)
    ),
    "SkipLayerNormalization": lambda: model(
        [helper.make_node("SkipLayerNormalization", ["x", "x", "g", "b", "c"], ["y"],
                          domain="com.microsoft", epsilon=1e-5)],
        (1, 3, 4), g=normal(4), b=normal(4), c=normal(4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRIB)
def test_fused_operators_are_unfolded(name: str) -> None:
    before = CONTRIB[name]()
    shape = tuple(d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim)
    after = rewritten(before, shape)
    assert {n.domain for n in after.graph.node} == {""}


def test_a_blocked_layout_is_refused_by_name() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "stem", domain="com.microsoft.nchwc")
    with pytest.raises(UnsupportedError, match=r"'stem' .*layout belongs to the processor"):
        canonical(model([node], (1, 8, 4, 4), w=normal(8, 8, 1, 1)), "net.onnx", learn_shapes)


def test_a_shape_that_inference_does_not_know_is_learned_from_a_run() -> None:
    """A com.microsoft operator in front: onnx's inference says nothing behind it."""
    nodes = [
        helper.make_node("Inverse", ["x"], ["i"], domain="com.microsoft"),
        helper.make_node("Conv", ["i", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2]),
    ]
    after = rewritten(model(nodes, (1, 2, 4, 4), w=normal(3, 2, 3, 3)), (1, 2, 4, 4), 1e-4)
    assert attributes(after.graph.node[1])["pads"] == [1, 1, 0, 0]


# --- precision


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_half_and_double_become_float(kind: type) -> None:
    tensor = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weights = [numpy_helper.from_array(normal(3, 2).astype(kind), "w"),
               numpy_helper.from_array(np.array(0.5, kind), "c")]  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["d"], to=tensor),
        helper.make_node("Mul", ["d", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", tensor, (4, 3))],
        [helper.make_tensor_value_info("y", tensor, (4, 2))], weights,
    )  # fmt: skip
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    after = canonical(before, "net.onnx", learn_shapes)
    x = normal(4, 3)
    got = answer(after, x)
    assert got.dtype == np.float32
    near = 2e-2 if kind is np.float16 else 1e-5
    np.testing.assert_allclose(got, answer(before, x.astype(kind)), rtol=near, atol=near)


def test_the_canonical_form_of_a_canonical_form_is_itself() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER")
    pool = helper.make_node("AveragePool", ["a"], ["y"], kernel_shape=[3, 3], strides=[2, 2],
                            ceil_mode=1, count_include_pad=1, pads=[1, 1, 1, 1])  # fmt: skip
    once = canonical(
        model([node, pool], (1, 4, 6, 6), w=normal(4, 4, 3, 3)), "net.onnx", learn_shapes
    )
    twice = canonical(once, "net.onnx", learn_shapes)
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)


def focus() -> list[Any]:
    """YOLOX's: (even, even), (odd, even), (even, odd), (odd, odd), each of all channels."""
    nodes, parts = [], []
    for i, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        nodes.append(helper.make_node("Slice", ["x", f"b{dy}", "far", "two", "step"], [f"h{i}"]))
        nodes.append(
            helper.make_node("Slice", [f"h{i}", f"b{dx}", "far", "three", "step"], [f"p{i}"])
        )
        parts.append(f"p{i}")
    return [*nodes, helper.make_node("Concat", parts, ["z"], axis=1)]


FOCUS = {
    "b0": np.array([0]), "b1": np.array([1]), "far": np.array([2**31]), "two": np.array([2]),
    "three": np.array([3]), "step": np.array([2]),
}  # fmt: skip
UNSHUFFLE = [
    helper.make_node("Reshape", ["x", "split"], ["r"]),
    helper.make_node("Transpose", ["r"], ["t"], perm=[0, 1, 3, 5, 2, 4]),
    helper.make_node("Reshape", ["t", "join"], ["z"]),
]
STEMS: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "focus": (focus(), FOCUS),
    "space-to-depth": ([helper.make_node("SpaceToDepth", ["x"], ["z"], blocksize=2)], {}),
    "pixel-unshuffle": (
        UNSHUFFLE,
        {"split": np.array([1, 3, 6, 2, 8, 2]), "join": np.array([1, 12, 6, 8])},
    ),
}


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("kernel", [(3, 3, 1, 1), (1, 1, 1, 0), (3, 2, 2, 1)])
def test_space_to_depth_goes_into_its_convolution(name: str, kernel: tuple[int, ...]) -> None:
    nodes, held = STEMS[name]
    high, wide, stride, pad = kernel
    conv = helper.make_node(
        "Conv", ["z", "w", "b"], ["y"], strides=[stride, stride], pads=[pad, 0, 0, pad]
    )
    weights = {**held, "w": normal(5, 12, high, wide), "b": normal(5)}
    after = rewritten(model([*nodes, conv], (1, 3, 12, 16), **weights), (1, 3, 12, 16))
    (only,) = after.graph.node
    assert attributes(only)["kernel_shape"] == [2 * high, 2 * wide]
    assert attributes(only)["strides"] == [2 * stride, 2 * stride]
    assert attributes(only)["pads"] == [2 * pad, 0, 0, 2 * pad]


@pytest.mark.parametrize(
    ("parts", "read", "folds"),
    [
        (["p3", "p0", "p2", "p1"], False, True),  # in any order
        (["p0", "p1", "p2", "p2"], False, False),  # no space to depth
        (["p0", "p1", "p2", "p3"], True, False),  # the copies are read by others too
    ],
)
def test_what_is_no_space_to_depth_stays(parts: list[str], read: bool, folds: bool) -> None:
    nodes = [*focus()[:-1], helper.make_node("Concat", parts, ["z"], axis=1)]
    conv = helper.make_node("Conv", ["z", "w"], ["y"], pads=[1, 1, 1, 1])
    tail = [conv]
    if read:
        tail = [
            helper.make_node("Conv", ["z", "w"], ["v"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceMean", ["z", "axes"], ["m"]),
            helper.make_node("Add", ["v", "m"], ["y"]),
        ]
    held = {**FOCUS, "w": normal(5, 12, 3, 3), "axes": np.array([1])}
    after = rewritten(model([*nodes, *tail], (1, 3, 12, 16), **held), (1, 3, 12, 16))
    ops = [n.op_type for n in after.graph.node]
    assert ("Concat" in ops) != folds
