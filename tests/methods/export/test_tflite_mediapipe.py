"""A custom operator that has a builtin's meaning is said with the builtin one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.backends.tflite.run import Session, plain
from edgecv.errors import ModelError, UnsupportedError
from edgecv.methods.export import _tflite_mediapipe as mediapipe
from edgecv.methods.export import tflite_file
from tests.models.importing.tflite_files import File, conv

RNG = np.random.default_rng(0)


def written(path: Path, options: list[int], out: tuple[int, int] = (10, 12)) -> Path:
    """A convolution and MediaPipe's transposed one."""
    f = File()
    x = conv(f, f.input(1, 5, 6, 3), 4)
    w, b = f.hold(RNG.normal(size=(3, 2, 2, 4))), f.hold(RNG.normal(size=3))
    y = f.op(mediapipe.NAME, [x, w, b], (1, *out, 3), custom=True)
    f.graph.operators[-1].customOptions = list(np.array(options, "<i4").tobytes())
    path.write_bytes(f.bytes(y))
    return path


def test_it_is_said_with_the_builtin_operator(tmp_path: Path) -> None:
    path = written(tmp_path / "net.tflite", [1, 2, 2, 0, 0])
    graph = tflite_file.load(path, tmp_path / "graph")
    assert graph.facts["ops"] == {"CONV_2D": 1, "TRANSPOSE_CONV": 1}
    x = {"in0": RNG.normal(size=(1, 5, 6, 3)).astype("f4")}
    (wanted,) = Session({"m.tflite": path.read_bytes()}).run(x).values()
    (found,) = plain({"m.tflite": graph.path.read_bytes()}).run(x).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [[1, 2], [0, 2, 2]])
def test_options_that_cannot_be_read(options: list[int], tmp_path: Path) -> None:
    path = written(tmp_path / "net.tflite", options)
    with pytest.raises((ModelError, UnsupportedError), match="cannot be read"):
        tflite_file.load(path, tmp_path / "graph")


def test_another_meaning_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "net.tflite", [1, 2, 2, 0, 0])
    content = path.read_bytes()
    model = tflite_file.flatbuffer.parse(content, "net.tflite")
    assert mediapipe.said_plainly(model, "net.tflite") == 1
    op = tflite_file.flatbuffer.graph_of(model).operators[-1]
    weight = model.subgraphs[0].tensors[op.inputs[1]]
    tflite_file.flatbuffer.set_constant(model, weight, RNG.normal(size=(3, 2, 2, 4)).astype("f4"))
    with pytest.raises(ModelError, match="would answer differently"):
        tflite_file._as_xnnpack(content, tflite_file.flatbuffer.written(model), "net.tflite")
