"""Each layer's own noise, apart from what it inherits, and grids that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import broken_exports as broken
from edgecv.diagnosis.parity.images import Inputs, of_run
from edgecv.diagnosis.parity.noise import Noise, per_layer
from edgecv.diagnosis.parity.reference import simulated
from edgecv.runtime.archive import read_bundle
from tests.diagnosis.parity.conftest import PREPROCESS, Made, wrong


def rows(made: Made, name: str, other: Path | None = None) -> list[Noise]:
    engine = name.partition(".")[2]
    a, b = (simulated(read_bundle(p)) for p in (made[f"fp32.{engine}"], other or made[name]))
    assert a
    assert b
    xs = Inputs(of_run(made.root / "images").spread(8), PREPROCESS)
    return per_layer(a(), b(), xs)


@pytest.mark.parametrize("name", ["int8.cpu", "int8.tflite"])
def test_own_noise_is_less_than_noise(name: str, made: Made) -> None:
    found = rows(made, name)
    first = found[0]
    assert first.own_db is not None
    assert -0.1 < first.own_db - first.sqnr_db < 6  # the image's own grid costs a little
    assert all(r.own_db is not None and r.own_db > 10 for r in found)
    deep = [r for r in found[2:] if r.kind == "conv"]
    assert all(r.own_db >= r.sqnr_db - 1 for r in deep if r.own_db)
    assert all(0 <= r.saturated < 0.05 for r in found)
    assert all(r.used is None or 0.2 < r.used < 2 for r in found)


def scaled(content: bytes, factor: float) -> tuple[bytes, str]:
    """An int8 .onnx file with the grid of its second convolution's result made so much wider."""
    import onnx

    model = onnx.load_model_from_string(content)
    conv = [n for n in model.graph.node if n.op_type == "Conv"][1]
    pair = next(
        n
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] == conv.output[0]
    )
    for held in model.graph.initializer:
        if held.name == pair.input[1]:
            value = onnx.numpy_helper.to_array(held) * np.float32(factor)
            held.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), held.name))
    return bytes(model.SerializeToString()), str(conv.name)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1 / 16, "its range is too narrow"), (64.0, "its range is too wide")],
)
def test_a_range_that_does_not_fit_is_named(
    factor: float, words: str, made: Made, climb: Callable, tmp_path: Path
) -> None:
    content, layer = scaled(read_bundle(made["int8.cpu"]).files["model.onnx"], factor)
    bundle = broken.edited(made["int8.cpu"], tmp_path / "range.edgecv", lambda _: content)
    data = climb(bundle, made.model)
    # an int8 network may answer well enough all the same: then its weakest layer is a note
    said = data["notes"][-1] if data["agrees"] else wrong(data)["finding"]["cause"]
    assert said.startswith(f"{layer} (conv) loses most by itself")
    assert words in said
    row = next(r for r in rows(made, "int8.cpu", bundle) if r.layer == layer)
    before = next(r for r in rows(made, "int8.cpu") if r.layer == layer)
    assert row.used is not None
    assert before.used is not None
    assert row.used == pytest.approx(before.used / factor, rel=0.01)
    assert (row.saturated > 0.1) == (factor < 1)
