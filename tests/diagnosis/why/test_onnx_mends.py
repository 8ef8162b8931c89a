"""An ONNX graph with one thing mended answers as it should, and runs as it should."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgecv.backends.onnxruntime.run import Session
from edgecv.diagnosis.why.onnx_fusing import BELOW_ZERO
from edgecv.diagnosis.why.onnx_view import OnnxView
from tests.diagnosis.why.graphs import HW, Build, feeds, run


def view(content: bytes) -> OnnxView:
    return OnnxView("model.onnx", content, x86=True)


def ops(files) -> list[str]:
    import onnx

    (content,) = files.values()
    return [n.op_type for n in onnx.load_from_string(content).graph.node]


def chain(dtype: type = np.uint8) -> OnnxView:
    """Two convolutions on a grid."""
    build = Build()
    x = build.grid("x", dtype)
    x = build.grid(build.node("Relu", [build.conv(x, "a")], "relu"), dtype, True)
    return view(build.model(build.grid(build.conv(x, "b"), dtype)))


def test_unsigned_is_the_same_function_and_fuses() -> None:
    signed = chain(np.int8)
    assert [p.activations for p in signed.products] == ["int8", "int8"]
    assert all("signed" in p.unfused for p in signed.products)
    mended = signed.unsigned()
    assert mended is not None
    assert np.array_equal(run(mended), run(signed.files))
    assert Session(mended).executed() == {"int8": 2}
    assert [p.unfused for p in view(*mended.values()).products] == ["", ""]
    assert chain().unsigned() is None, "nothing to mend"


def test_an_input_that_is_not_quantized_is_named_and_mended() -> None:
    build = Build()
    x = build.grid(build.node("Relu", [build.conv("x", "a", integer=False)], "relu"), positive=True)
    shipped = view(build.model(build.grid(build.conv(x, "b"))))
    first, second = shipped.products
    assert (first.layer, first.unfused) == ("a", "its input is not quantized")
    assert (second.layer, second.unfused) == ("b", "")
    assert Session(shipped.files).executed() == {"int8": 1, "fp32": 1}
    mended = shipped.in_integers({"a"}, feeds())
    assert mended is not None
    assert Session(mended).executed() == {"int8": 2}
    signal = run(shipped.files)
    assert np.square(run(mended) - signal).sum() < 0.01 * np.square(signal).sum()


def test_an_activation_that_does_not_fuse_is_named_and_mended() -> None:
    build = Build()
    x = build.conv(build.grid("x"), "a")
    x = build.grid(build.node("Sigmoid", [x], "sigmoid"))
    shipped = view(build.model(build.grid(build.conv(x, "b"))))
    assert shipped.products[0].unfused == "its output is not quantized before Sigmoid"
    assert Session(shipped.files).executed() == {"int8": 1, "fp32": 1}
    mended = shipped.in_integers({"a"}, feeds())
    assert mended is not None
    assert Session(mended).executed() == {"int8": 2}


def test_a_relu_before_a_grid_that_goes_below_zero_is_named_and_mended() -> None:
    build = Build()
    x = build.grid(build.node("Relu", [build.conv(build.grid("x"), "a")], "relu"))
    shipped = view(build.model(build.grid(build.conv(x, "b"))))
    assert shipped.products[0].unfused == BELOW_ZERO
    assert Session(shipped.files).executed() == {"int8": 1, "fp32": 1}
    mended = shipped.in_integers({"a"}, feeds())
    assert mended is not None
    assert Session(mended).executed() == {"int8": 2}


def test_a_float_output_read_twice_is_named() -> None:
    build = Build()
    a = build.conv(build.grid("x"), "a")
    x = build.grid(build.node("Add", [a, build.node("Neg", [a], "neg")], "sum"))
    shipped = view(build.model(build.grid(build.conv(x, "b"))))
    assert shipped.products[0].unfused == "2 nodes read its float output"


def test_a_computed_weight_is_named() -> None:
    build = Build()
    build.conv(build.grid("x"), "a", integer=False)
    build.node("Mul", ["a.weight", build.node("ReduceMax", ["x"], "m", keepdims=1)], "w")
    build.nodes[2].input[1] = "w"
    build.nodes.append(build.nodes.pop(2))  # the convolution last
    shipped = view(build.model(build.grid("a")))
    (product,) = shipped.products
    assert (product.weights, product.unfused) == ("", "its weight is computed, not a constant")
    assert shipped.in_integers({"a"}, feeds()) is None


def test_packed_weights_of_a_float_layer_are_unpacked() -> None:
    build = Build()
    shipped = view(build.model(build.conv("x", "a")))
    assert (shipped.products[0].activations, shipped.products[0].weights) == ("float32", "int8")
    mended = shipped.unpacked()
    assert mended is not None
    np.testing.assert_allclose(run(mended), run(shipped.files), rtol=1e-5, atol=1e-6)
    assert "DequantizeLinear" in ops(shipped.files)
    assert view(*mended.values()).products[0].weights == "float32"
    assert chain().unpacked() is None, "integers for an integer layer stay"


def test_transpositions_that_undo_each_other_go_and_nothing_changes() -> None:
    build = Build()
    x = build.node("Transpose", [build.conv("x", "a", integer=False)], "t", perm=[0, 2, 3, 1])
    x = build.node("Transpose", [build.node("Relu", [x], "r")], "u", perm=[0, 3, 1, 2])
    shipped = view(build.model(build.conv(x, "b", integer=False)))
    assert [t.between for t in shipped.transposes] == [("a", "b"), ("a", "b")]
    mended = shipped.without_transposes()
    assert mended is not None
    assert ops(mended) == ["Conv", "Relu", "Conv"]
    assert np.array_equal(run(mended), run(shipped.files))


def test_two_transpositions_in_a_row_go() -> None:
    build = Build()
    x = build.node("Transpose", [build.conv("x", "a", integer=False)], "t", perm=[0, 2, 3, 1])
    x = build.node("Transpose", [x], "u", perm=[0, 3, 1, 2])
    shipped = view(build.model(build.conv(x, "b", integer=False)))
    mended = shipped.without_transposes()
    assert mended is not None
    assert ops(mended) == ["Conv", "Conv"]
    assert np.array_equal(run(mended), run(shipped.files))


def test_a_transposition_alone_keeps_the_shapes() -> None:
    build = Build()
    x = build.conv("x", "a", integer=False)
    x = build.node("Transpose", [x], "t", perm=[0, 2, 3, 1])
    shipped = view(build.model(x, (1, HW, HW, 4)))
    mended = shipped.without_transposes()
    assert mended is not None
    assert ops(mended) == ["Conv", "Reshape"]
    assert run(mended).shape == run(shipped.files).shape
    assert chain().without_transposes() is None


def test_subnormal_weights_are_scanned_and_flushed() -> None:
    build = Build()
    build.conv("x", "a", integer=False)
    values = np.full((4, 4, 3, 3), 1e-40, np.float32)
    values[0] = 0.5
    build.held[0].CopyFrom(build._numpy.from_array(values, "a.weight"))
    shipped = view(build.model("a"))
    assert {n: v.shape for n, v in shipped.floats()} == {"a": (4, 4, 3, 3)}
    mended = shipped.without_subnormals()
    assert mended is not None
    assert np.array_equal(run(mended)[:, 0], run(shipped.files)[:, 0])
    assert not run(mended)[:, 1:].any()
    assert view(*mended.values()).without_subnormals() is None


def test_activations_by_layer() -> None:
    build = Build()
    build.node(
        "Mul", [build.conv("x", "a", integer=False), build.hold("k", np.float32(1e-39))], "y"
    )
    found = dict(view(build.model("y")).activations(feeds()))
    assert found["a"].shape == (1, 4, HW, HW)


def test_what_is_no_onnx_file_is_refused() -> None:
    from edgecv.errors import EngineError

    with pytest.raises(EngineError, match=r"model\.onnx"):
        view(b"not a model")
