"""The door for a user's .tflite file: what it is, what stays as it is, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends.tflite.run import Session, plain
from edgecv.errors import EdgecvError, ModelError, UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.onnx.pins import Pins
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.tflite_file import load
from edgecv.methods.quantize.half import halve
from tests.backends.tflite_graphs import GRID, float_graph, images, int8_graph
from tests.graphs.tflite.test_metadata import metadata, with_metadata


def answers(content: bytes, batch: np.ndarray) -> np.ndarray:
    session = plain({"net.tflite": content})
    name, out = session.inputs[0].name, session.outputs[0].name
    return np.concatenate([session.run({name: x[None]})[out] for x in batch])


def quantized(how: str) -> bytes:
    """The float network by a recipe of ai_edge_quantizer's."""
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(bytearray(float_graph().path.read_bytes()))
    work.load_quantization_recipe(getattr(recipe, how)())
    return bytes(work.quantize().quantized_model)


def changed(edit: Callable[[Any], None], source: Path | None = None) -> bytes:
    model = flatbuffer.read(source or float_graph().path)
    edit(model)
    return flatbuffer.written(model)


def entered(tmp_path: Path, content: bytes, size: tuple[int, int] | None = None) -> Graph:
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    return load(path, tmp_path / "out", Pins(size=size))


def test_a_float_file_stays_as_it_is(tmp_path: Path):
    content = float_graph().path.read_bytes()
    graph = entered(tmp_path, content)
    assert (graph.format, graph.precision) == ("tflite", "fp32")
    assert graph.path.read_bytes() == content
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["input", "logits"]


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_an_integer_file_stays_as_it_is_and_says_how_it_takes_pixels(tmp_path: Path, io: str):
    content = int8_graph(io).path.read_bytes()
    graph = entered(tmp_path, content)
    assert graph.precision == "int8"
    assert graph.path.read_bytes() == content
    spec, told = graph.inputs[0], graph.facts["input"]
    real = (np.arange(256) - told["mean"][0]) / told["std"][0]
    q = np.rint(real / spec.scale + spec.zero_point)
    assert (q == np.arange(256) - (128 if io == "int8" else 0)).all()  # pixels as they are


def test_weights_stored_in_fp16_become_floats_and_halved_again_the_same(tmp_path: Path):
    half = halve(float_graph(), tmp_path / "half").path.read_bytes()
    graph = entered(tmp_path, half)
    assert (graph.precision, graph.facts["stored"]) == ("fp32", "fp16")
    assert "DEQUANTIZE" not in graph.facts["ops"]
    batch = images(4)
    np.testing.assert_allclose(answers(graph.path.read_bytes(), batch), answers(half, batch),
                               rtol=1e-5, atol=1e-5)  # fmt: skip
    again = halve(graph, tmp_path / "again").path.read_bytes()
    assert (answers(again, batch) == answers(half, batch)).all()
    assert len(again) < 1.05 * len(half)


def test_int8_weights_that_meet_floats_become_floats(tmp_path: Path):
    content = quantized("weight_only_wi8_afp32")
    graph = entered(tmp_path, content)
    assert (graph.precision, graph.facts["stored"]) == ("fp32", "int8")
    np.testing.assert_allclose(answers(graph.path.read_bytes(), images(2)),
                               answers(content, images(2)), rtol=1e-4, atol=1e-4)  # fmt: skip


def test_dynamic_range_is_int8_and_says_so(tmp_path: Path):
    content = quantized("dynamic_wi8_afp32")
    graph = entered(tmp_path, content)
    assert graph.precision == "int8"
    assert graph.path.read_bytes() == content
    assert "dynamic range" in graph.facts["notes"][0]
    assert len(graph.facts["float_ends"]) == sum(Session({"a": content}).executed().values())


def test_16_bit_activations_are_refused(tmp_path: Path):
    def wide(model: Any) -> None:
        graph, kind = flatbuffer.graph_of(model), flatbuffer.enum("TensorType", "INT16")
        for op in graph.operators:
            graph.tensors[op.outputs[0]].type = kind

    with pytest.raises(UnsupportedError, match="16-bit"):
        entered(tmp_path, changed(wide, int8_graph().path))


def opened(model: Any) -> None:
    """Leave batch, height and width open."""
    graph = flatbuffer.graph_of(model)
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shape, tensor.shapeSignature = [1, 1, 1, 3], [-1, -1, -1, 3]


def test_open_dimensions_are_pinned(tmp_path: Path):
    graph = entered(tmp_path, changed(opened), (32, 40))
    assert graph.inputs[0].shape == (1, 32, 40, 3)
    assert graph.outputs[0].shape == (1, 10)
    model = flatbuffer.read(graph.path)
    assert all(t.shapeSignature is None for t in flatbuffer.graph_of(model).tensors)
    with pytest.raises(ModelError, match="--input-size"):
        entered(tmp_path, changed(opened))


def test_a_file_as_old_as_the_format_is_quantized_by_what_it_holds(tmp_path: Path):
    """Its operators stand in the old field alone, which the quantizer reads as ADD."""
    from edgecv.methods.quantize.tflite_int8 import quantize_tflite

    def old(model: Any) -> None:
        for code in model.operatorCodes:
            code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0

    graph = entered(tmp_path, changed(old))
    made = quantize_tflite(graph, images()[:16], GRID, "int8", tmp_path / "int8")
    same = int8_graph()
    assert made.facts["executed"] == same.facts["executed"]
    assert made.path.read_bytes() == same.path.read_bytes()


def test_what_the_file_says_of_itself_is_told(tmp_path: Path):
    names = [f"class {i}" for i in range(10)]
    held = metadata([127.5], [64.0], "l.txt")
    graph = entered(tmp_path, with_metadata(held, {"l.txt": "\n".join(names)}))
    assert graph.facts["input"] == {"mean": [127.5], "std": [64.0], "labels": names}
    graph = entered(tmp_path, with_metadata(held, {"l.txt": "one\ntwo"}))
    assert "labels" not in graph.facts["input"]  # of another output


def custom(name: bytes) -> Callable[[Any], None]:
    """The first operator is one of that name."""

    def edit(model: Any) -> None:
        op = flatbuffer.graph_of(model).operators[0]
        code = flatbuffer.new("OperatorCodeT")
        code.customCode = name
        code.builtinCode = code.deprecatedBuiltinCode = 32
        model.operatorCodes.append(code)
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.builtinOptions, op.builtinOptionsType = None, 0

    return edit


def not_finite(model: Any) -> None:
    graph = flatbuffer.graph_of(model)
    conv = next(op for op in graph.operators if flatbuffer.op_name(model, op) == "CONV_2D")
    values = flatbuffer.constant(model, graph.tensors[conv.inputs[1]])
    assert values is not None
    values.flat[0] = np.nan
    flatbuffer.set_constant(model, graph.tensors[conv.inputs[1]], values)


def several(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def batch(model: Any) -> None:
    graph = flatbuffer.graph_of(model)
    graph.tensors[graph.inputs[0]].shape = [1, 0, 24, 3]


def image_out(model: Any) -> None:
    flatbuffer.graph_of(model).outputs = list(flatbuffer.graph_of(model).inputs)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (custom(b"MyOwnConv"), "MyOwnConv is not a builtin operator"),
        (custom(b"FlexErf"), "Erf is an operator of TensorFlow"),
        (custom(b"edgetpu-custom-op"), "compiled for the Edge TPU already"),
        (custom(b"TFLite_Detection_PostProcess"), "LiteRT cannot open it"),  # it dies of this one
        (not_finite, "NaN"),
        (several, "2 graphs"),
        (batch, "dynamic"),
        (image_out, "is the image that came in"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(
    tmp_path: Path, edit: Callable[[Any], None], said: str
):
    with pytest.raises(EdgecvError, match=said) as e:
        entered(tmp_path, changed(edit))
    assert e.value.exit_code == 2
    assert not (tmp_path / "out" / "model.tflite").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"<!doctype html>", "is not a .tflite file"),
        (b"", "is not a .tflite file"),
        (b"\x1c\0\0\0TFL3" + b"\xff" * 40, "damaged"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, said: str):
    with pytest.raises(ModelError, match=said):
        entered(tmp_path, content)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    content = float_graph().path.read_bytes()
    for share in (0.3, 0.9):
        with pytest.raises(ModelError):
            entered(tmp_path, content[: int(share * len(content))])
