"""C: several inputs and a batch, compiled, against ONNX Runtime with its optimisations off."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgecv import source_trust
from edgecv.backends.c.compile import compile as to_c
from edgecv.backends.c.run import Session, probe
from edgecv.graph import Graph
from edgecv.runtime.spec import TensorSpec, channels_first, channels_last
from edgecv.target import load
from tests.backends.test_c_operators import Written, answers, normal, sanitized
from tests.backends.test_c_random_graphs import Chain, on_grids

pytestmark = pytest.mark.skipif(not probe().available, reason="no C compiler")
Shape = tuple[int, ...]


def compiled(w: Written, model: Any, feed: dict[str, np.ndarray], room: Path) -> float:
    """The largest error of the C code over what ONNX Runtime answers; warnings of the compiler, and
    what its sanitizers find in a run of the golden vectors, are failures."""
    onnx.save(model, str(room / "model.onnx"))
    outputs = tuple(TensorSpec(n, "float32", ()) for n in w.outputs)
    graph = Graph(room / "model.onnx", "onnx", "fp32", (), outputs, {})
    made = to_c(graph, load("c"), room / "c")
    with source_trust.own():
        session = Session({n: (room / "c" / n).read_bytes() for n in made.files})
    assert (session.inputs, session.outputs) == (made.inputs, made.outputs)
    assert [s.name for s in session.inputs] == list(feed)
    given = zip(session.inputs, feed.values(), strict=True)
    found = session.run({s.name: channels_last(v, s) for s, v in given})
    session.close()
    if shutil.which("gcc"):
        sanitized(room, "-Wno-unused-function")  # a block of kernels.c holds two
    errors = [0.0]
    for spec, wanted in zip(session.outputs, answers(model, **feed), strict=True):
        got = channels_first(found[spec.name], spec).reshape(wanted.shape)
        errors.append(float(np.linalg.norm(got - wanted) / (np.linalg.norm(wanted) + 1e-3)))
    return max(errors)


@pytest.mark.parametrize("kind", ["float", "int8"])
@pytest.mark.parametrize("seed", [16, 24, 71])
def test_random_networks(seed: int, kind: str, tmp_path: Path) -> None:
    c = Chain(seed, several=True)
    feed = {n: c.values(s) for n, s in {"x": c.shape, **c.others}.items()}
    made = c if kind == "float" else on_grids(c, feed, True)
    model = made.model(c.shape, **c.others)
    assert compiled(made, model, feed, tmp_path) <= (1e-4 if kind == "float" else 0.12)


def hourglass(w: Written, channels: int) -> str:
    """Down and up again, with a way around, gated by channel: a small U-Net."""
    whole = w("Relu", w("Conv", "x", normal(6, channels, 3, 3) / 5, pads=[1] * 4))
    half = w("MaxPool", whole, kernel_shape=[2, 2], strides=[2, 2])
    half = w("Conv", half, normal(6, 3, 3, 3) / 5, pads=[1] * 4, group=2)
    gate = w("Flatten", w("GlobalAveragePool", half))
    gate = w("Sigmoid", w("Gemm", gate, normal(6, 6), transB=1))
    gate = w("Reshape", gate, w.ints(-1, 6, 1, 1))
    up = w("ConvTranspose", w("Mul", half, gate), normal(6, 4, 2, 2) / 5, strides=[2, 2])
    return w("Conv", w("Concat", whole, up, axis=1), normal(2, 10, 1, 1))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_images_of_a_batch_do_not_reach_into_each_other(batch: int, tmp_path: Path) -> None:
    w = Written()
    whole = hourglass(w, 3)
    means = w("ReduceMean", whole, w.ints(2, 3), keepdims=0)  # a row an image
    w.ends(whole, w("Gemm", means, normal(3, 2), transB=1))
    shape = (batch, 3, 6, 8)
    assert compiled(w, w.model(shape), {"x": normal(*shape)}, tmp_path) < 1e-5
    header = (tmp_path / "c" / "model.h").read_text()
    assert ("MODEL_BATCH" in header) == (batch > 1)
    assert "void model_run(const float *input, float *output, void *memory);" in header
    assert "#define MODEL_HEIGHT 6\n" in header


def test_what_is_computed_over_the_batch_is(tmp_path: Path) -> None:
    """Nothing is computed image by image that mixes them: a mean, a softmax, a product over it."""
    w = Written()
    features = w("Flatten", w("MaxPool", "x", kernel_shape=[3, 3], strides=[3, 3]))
    alike = w("MatMul", features, w("Transpose", features, perm=[1, 0]))
    w.ends(w("Sub", "x", w("ReduceMean", "x", w.ints(0))), w("Softmax", alike, axis=0),
           w("Concat", "x", w("Relu", "x"), axis=0),
           w("Conv", w("Transpose", "x", perm=[1, 0, 2, 3]), normal(2, 3, 1, 1)))  # fmt: skip
    shape = (3, 2, 6, 6)
    assert compiled(w, w.model(shape), {"x": normal(*shape)}, tmp_path) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
def test_each_input_has_a_pointer_in_the_graphs_order(batch: int, tmp_path: Path) -> None:
    """Two images, a row, a sequence; one that nothing reads."""
    w = Written()
    joined = w("Concat", "x", "mask", axis=1)
    row = w("Reshape", w("Gemm", "row", normal(2, 4), transB=1), w.ints(-1, 2, 1, 1))
    line = w("Conv", "line", normal(3, 5, 3), pads=[1, 1])
    w.ends(w("Add", w("Conv", joined, normal(2, 4, 3, 3)), row), w("Relu", line))
    shapes = {"x": (batch, 3, 6, 5), "row": (batch, 4), "mask": (batch, 1, 6, 5),
              "line": (batch, 5, 7), "idle": (batch, 9)}  # fmt: skip
    feed = {n: normal(*s) for n, s in shapes.items()}
    shape = shapes.pop("x")
    assert compiled(w, w.model(shape, **shapes), feed, tmp_path) < 1e-5
    header = (tmp_path / "c" / "model.h").read_text()
    taken = ", ".join(f"const float *input{k}" for k in range(5))
    assert f"void model_run({taken}, float *output, void *memory);" in header
    sizes = re.findall(r"MODEL_INPUT\d (\d+) /\* floats of (\w+)", header)
    assert sizes == [(str(v.size), n) for n, v in feed.items()]


def test_the_header_says_which_way_an_output_lies(tmp_path: Path) -> None:
    """And of a row nothing, whatever it was before."""

    def said(w: Written, name: str, **others: tuple[int, ...]) -> str:
        feed = {"x": normal(1, 3, 6, 8), **{n: normal(*s) for n, s in others.items()}}
        room = tmp_path / name
        room.mkdir()
        assert compiled(w, w.model((1, 3, 6, 8), **others), feed, room) < 1e-5
        header = (room / "c" / "model.h").read_text()
        return header[header.index("/* input") : header.index(";\n   memory: ")]

    def conv(w: Written, filters: int) -> str:
        return w("Conv", "x", normal(filters, 3, 3, 3))

    given = "/* input: (height, width, channels), normalised as the manifest says; output: "
    w = Written()
    w.ends(conv(w, 2))
    assert said(w, "map") == f"{given}MODEL_OUTPUTS floats, (1, 4, 6, 2), channels last"
    w = Written()
    w.ends(w("Transpose", conv(w, 2), perm=[0, 2, 3, 1]))
    assert said(w, "turned") == f"{given}MODEL_OUTPUTS floats, (1, 4, 6, 2), as in ONNX"
    for name, operator, filters in (("row", "Flatten", 1), ("classes", "GlobalAveragePool", 5)):
        w = Written()
        w.ends(w(operator, conv(w, filters)))
        assert said(w, name) == f"{given}MODEL_OUTPUTS floats"
    w = Written()
    w.ends(conv(w, 2), w("Gemm", "row", normal(2, 4), transB=1))
    assert said(w, "two", row=(1, 4)) == (
        "/* input0: x (1, 6, 8, 3), channels last, normalised as the manifest says;\n"
        "   input1: row (1, 4), taken as it is; output: MODEL_OUTPUTS floats,\n"
        "   one output behind the other: v0 (48: (1, 4, 6, 2), channels last), v1 (2)"
    )


def test_a_sequence_for_each_of_a_batch(tmp_path: Path) -> None:
    """(steps, batch, features), and the last state of each."""
    w = Written()
    sizes = {"hidden_size": 5, "direction": "bidirectional"}
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        given = [normal(2, gates * 5, n) / 3 for n in (6, 5)]
        every = w(op, "x", *given, normal(2, 2 * gates * 5) / 3, outputs=2, **sizes)
        w.ends(w("Relu", every), w("Relu", f"{every}_1"))
    shape = (4, 3, 6)
    assert compiled(w, w.model(shape), {"x": normal(*shape)}, tmp_path) < 1e-5


def test_a_session_wants_every_input_in_its_shape(tmp_path: Path) -> None:
    from edgecv.errors import EngineError

    w = Written()
    w.ends(w("Add", "x", "other"))
    feed = {"x": normal(1, 4), "other": normal(1, 4)}
    compiled(w, w.model((1, 4), other=(1, 4)), feed, tmp_path)
    names = ("model.c", "model.h", "weights.h")
    with source_trust.own():
        session = Session({n: (tmp_path / "c" / n).read_bytes() for n in names})
    for wrong in ({"x": feed["x"]}, {**feed, "more": feed["x"]}, {**feed, "other": normal(4, 1)}):
        with pytest.raises(EngineError, match="feed the shapes and dtypes"):
            session.run(wrong)
    session.close()
