"""Pads in front of a maximum are the pool's own, averages of integers are convolutions: the same
numbers."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.backends.tflite.averages import averaged  # noqa: E402
from edgecv.backends.tflite.compile import compile  # noqa: E402
from edgecv.backends.tflite.pools import padded_pools  # noqa: E402
from edgecv.backends.tflite.run import Session  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.tflite import flatbuffer  # noqa: E402
from edgecv.methods.export.tflite import export_tflite  # noqa: E402
from edgecv.methods.quantize.tflite_int8 import quantize_tflite  # noqa: E402
from edgecv.target import load  # noqa: E402
from tests.backends.tflite_graphs import GRID, images  # noqa: E402

_ROOM = tempfile.TemporaryDirectory(prefix="edgecv-test-pools-")


class Pooled(nn.Module):
    """Maxima of 24 and 12 rows, of 21, behind what is read twice, and 5x5; averages over nine and
    four; a layer behind each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.even, self.halved = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, 2, padding=1)
        self.odd, self.twice, self.wide = (nn.Conv2d(3, 8, k) for k in (4, 3, 3))
        self.pool, self.wider = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(5, 2, 2)
        self.last = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(7))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        twice = torch.relu(self.twice(x))
        found = [self.pool(torch.relu(c(x))) for c in (self.even, self.halved, self.odd)]
        found += [self.pool(twice) + twice[:, :, ::2, ::2], self.wider(torch.relu(self.wide(x)))]
        found += [nn.functional.avg_pool2d(twice, k, 2) for k in (3, 2)]
        return tuple(last(y) for last, y in zip(self.last, found, strict=True))


@cache
def graph_of(integer: bool) -> Graph:
    room = Path(_ROOM.name) / str(integer)
    if integer:
        return quantize_tflite(graph_of(False), images()[:8], GRID, "float32", room)
    return export_tflite(Pooled().eval(), torch.zeros(1, 3, 24, 24), room)


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
def test_they_are_the_same_numbers(integer: bool) -> None:
    graph = graph_of(integer)
    model = flatbuffer.read(graph.path)
    before = flatbuffer.op_counts(model)
    assert padded_pools(model) == 3
    after = flatbuffer.op_counts(model)
    assert before.get("SLICE", 0) == 0
    assert after["SLICE"] == 2, "of 21 rows nothing is cut"
    files = (graph.path.read_bytes(), flatbuffer.written(model))
    want, got = (Session({"model.tflite": f}).run({"input": images()[9:10]}) for f in files)
    assert len(want) == 7
    for name, values in want.items():
        assert np.std(values) > 0
        assert np.array_equal(got[name], values)


def test_a_pad_that_may_be_the_greatest_stays() -> None:
    """Zeros beside negative numbers."""
    model = flatbuffer.read(graph_of(False).path)
    for op in flatbuffer.graph_of(model).operators:
        if flatbuffer.op_name(model, op) == "CONV_2D":
            none = flatbuffer.enum("ActivationFunctionType", "NONE")
            op.builtinOptions.fusedActivationFunction = none
    pads = [o for o in flatbuffer.graph_of(model).operators if len(o.inputs) == 2]
    assert any(flatbuffer.op_name(model, op) == "PAD" for op in pads)
    assert padded_pools(model) == 0


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
def test_averages_are_the_same_numbers(integer: bool, tmp_path: Path) -> None:
    """Of nine integers: of four, halves are rounded by the kernel's own rule."""
    graph = graph_of(integer)
    model = flatbuffer.read(graph.path)
    assert averaged(model) == integer
    assert flatbuffer.op_counts(model)["AVERAGE_POOL_2D"] == 2 - integer
    files = (graph.path.read_bytes(), flatbuffer.written(model))
    before, after = (Session({"model.tflite": f}) for f in files)
    want, got = (s.run({"input": images()[9:10]}) for s in (before, after))
    assert all(np.array_equal(got[name], values) for name, values in want.items())
    assert after.executed() == before.executed(), "it is no layer"
    compile(graph, load("tflite"), tmp_path)
    counts = flatbuffer.op_counts(flatbuffer.read(tmp_path / "model.tflite"))
    assert counts["AVERAGE_POOL_2D"] == 2 - integer
