"""The door for a user's OpenVINO IR, and the reference that its bundles are compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from edgecv.backends.openvino.compile import compile as compile_for
from edgecv.backends.openvino.plain import CAUTION, Plain
from edgecv.backends.openvino.run import Session
from edgecv.errors import ModelError, TargetError
from edgecv.graph import Graph
from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export.ends import with_kinds
from edgecv.methods.export.openvino_file import load
from edgecv.quick_export import Request
from edgecv.quick_export.recipe import recipe_of
from edgecv.target import load as target


@cache
def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(16, 3, 3, 3)).astype(np.float32) / 5
    return first, rng.normal(size=(16, 16, 1, 1)).astype(np.float32) / 4


def net(quantized: bool = False, shape: Any = (1, 3, 16, 16), scale: float = 1.0) -> ov.Model:
    """Two convolutions with a ReLU between; with FakeQuantize before each and on the weights."""

    def fq(x: Any, low: float, high: float, levels: int = 256) -> Any:
        ends = [np.float32(v) for v in (low, high)] * 2
        return ops.fake_quantize(x, *map(ops.constant, ends), levels)

    image = ops.parameter(ov.PartialShape(list(shape)), np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    x: Any = fq(image, -2, 2) if quantized else image
    for i, w in enumerate(weights()):
        size = float(np.abs(w).max())
        k: Any = ops.constant(w * scale)
        k = fq(k, -size, size, 255) if quantized else k
        x = ops.convolution(x, k, [1, 1], [1 - i] * 2, [1 - i] * 2, [1, 1])
        if i == 0:
            x = ops.relu(x)
            x = fq(x, 0, 4) if quantized else x
    x.output(0).get_tensor().set_names({"scores"})
    return ov.Model([ops.result(x)], [image], "net")


def saved(folder: Path, model: ov.Model, half: bool = False) -> Path:
    ov.save_model(model, str(folder / "net.xml"), compress_to_fp16=half)
    return folder / "net.xml"


def entered(tmp_path: Path, model: ov.Model, half: bool = False, **pins: Any) -> Graph:
    return load(saved(tmp_path, model, half), tmp_path / "out", Pins(**pins))


IMAGE = np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)


def test_a_float_file_comes_in_and_answers_the_same(tmp_path: Path):
    graph = entered(tmp_path, net())
    assert (graph.format, graph.precision) == ("openvino", "fp32")
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["image", "scores"]
    compiled = ov.Core().compile_model(net(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled(IMAGE)[0]
    found = Plain(graph.files()).run({"image": IMAGE})["scores"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_fp16_weights_become_the_floats_that_they_stand_for(tmp_path: Path):
    graph = entered(tmp_path, net(), half=True)
    assert (graph.precision, graph.facts["stored"]) == ("fp32", "fp16")
    assert b'element_type="f16"' not in graph.path.read_bytes()


def test_integers_are_read_back_and_the_reference_computes_in_floats(tmp_path: Path):
    graph = entered(tmp_path, net(quantized=True))
    assert (graph.precision, graph.facts["float_ends"]) == ("int8", [])
    compiled = compile_for(graph, target("openvino"), tmp_path / "engine")
    assert CAUTION in compiled.notes
    files = {name: (tmp_path / "engine" / name).read_bytes() for name in compiled.files}
    session = Session(files)
    assert session.executed() == {"int8": 2}
    plain = Plain(graph.files()).run({"image": IMAGE})["scores"]  # refuses anything fused

    def grid(x: np.ndarray, low: float, high: float, levels: int = 256) -> np.ndarray:
        step = (high - low) / (levels - 1)
        return np.rint((np.clip(x, low, high) - low) / step) * step + low

    first, second = (grid(w, -np.abs(w).max(), np.abs(w).max(), 255) for w in weights())
    padded = np.pad(grid(IMAGE, -2, 2)[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    hidden = grid(np.maximum(np.einsum("cyxij,ocij->oyx", windows, first), 0), 0, 4)
    wanted = np.einsum("cyx,oc->oyx", hidden, second[:, :, 0, 0])
    assert np.sqrt(((plain[0] - wanted) ** 2).mean()) < 0.01 * wanted.std()


def test_open_sides_are_pinned_and_asked_for(tmp_path: Path):
    graph = entered(tmp_path, net(shape=(-1, 3, -1, -1)), size=(24, 32))
    assert graph.inputs[0].shape == (1, 3, 24, 32)
    with pytest.raises(ModelError, match="--input-size"):
        entered(tmp_path, net(shape=(-1, 3, -1, -1)))


def test_channels_last_are_said_in_the_file(tmp_path: Path):
    image = ops.parameter([1, 16, 16, 3], np.float32, name="image")
    model = ov.Model([ops.result(ops.relu(image))], [image], "net")
    graph = entered(tmp_path, model)
    assert graph.inputs[0].layout == "NHWC"
    assert Session(graph.files()).inputs[0].layout == "NHWC"


def spoiled(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p.with_suffix(".bin").unlink(), "its weights are not there: net.bin"),
        (lambda p: p.with_suffix(".bin").write_bytes(b"short"), "one pair"),
        (spoiled, "cannot read it"),
        (lambda p: p.write_bytes(b"<html></html>"), "is no OpenVINO IR"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "git-lfs"),
        (lambda p: p.unlink(), "no such file"),
    ],
)
def test_what_is_no_whole_file_is_refused(tmp_path: Path, spoil: Callable[[Path], None], said: str):
    path = saved(tmp_path, net())
    spoil(path)
    with pytest.raises(ModelError, match=said) as e:
        load(path, tmp_path / "out")
    assert e.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="NaN or infinite"):
        entered(tmp_path, net(scale=float("nan")))


def test_other_engines_are_told_apart_before_anything_runs(tmp_path: Path):
    path = saved(tmp_path, net())
    with pytest.raises(TargetError, match="ONNX Runtime does not read"):
        recipe_of(Request(str(path), ("cpu",), "fp32"))


def test_a_row_behind_a_relu_holds_values_and_no_classes(tmp_path: Path):
    image = ops.parameter([1, 3, 16, 16], np.float32, name="image")
    row = ops.reduce_mean(image, ops.constant(np.array([2, 3])), False)
    found = []
    for place, last in enumerate((row, ops.relu(row))):
        folder = tmp_path / str(place)
        folder.mkdir()
        (output,) = with_kinds(entered(folder, ov.Model([last], [image])), None).outputs
        found.append(output.kind)
    assert found == ["classes", "values"]
