"""Shuffles of channels are done by the convolutions around them: the same numbers, from rows."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.backends.tflite.compile import compile  # noqa: E402
from edgecv.backends.tflite.run import Session  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.tflite import flatbuffer, layers  # noqa: E402
from edgecv.methods.export.tflite import export_tflite  # noqa: E402
from edgecv.methods.quantize.tflite_int8 import quantize_tflite  # noqa: E402
from edgecv.models.zoo.blocks import ChannelShuffle  # noqa: E402
from edgecv.target import load  # noqa: E402
from tests.backends.tflite_graphs import GRID, images  # noqa: E402

SLOW = {"STRIDED_SLICE", "GATHER", "GATHER_ND", "RESHAPE", "TRANSPOSE"}
HALF = 16
_ROOM = tempfile.TemporaryDirectory(prefix="edgecv-test-shuffles-")


class Shuffled(nn.Module):
    """Units of ShuffleNetV2: by slices with a step, by a gather as the zoo's, by a view as
    torchvision's; then the next stage's first layers.

    seen: the last half is an output too
    """

    def __init__(self, seen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.seen = seen
        self.shuffle = ChannelShuffle(2 * HALF, 2)
        self.stem, self.side = nn.Conv2d(3, HALF, 3, padding=1), nn.Conv2d(3, HALF, 1)
        self.right = nn.ModuleList(
            nn.Sequential(nn.Conv2d(HALF, 8, 1), nn.ReLU(), nn.Conv2d(8, HALF, 1), nn.ReLU())
            for _ in range(3)
        )
        self.down = nn.Conv2d(2 * HALF, 2 * HALF, 3, stride=2, padding=1, groups=2 * HALF)
        self.wide, self.last = nn.Conv2d(2 * HALF, 16, 1), nn.Conv2d(2 * HALF, 16, 1)

    def forward(self, x: torch.Tensor) -> object:
        x = torch.cat([torch.relu(self.stem(x)), torch.relu(self.side(x))], 1)
        for how, unit in zip(("slices", "gather", "view"), self.right, strict=True):
            if how == "gather":
                left, right = self.shuffle(x).chunk(2, 1)
            elif how == "view":
                n, c, h, w = x.shape
                x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
                left, right = x[:, :HALF], x[:, HALF:]
            else:
                left, right = x[:, ::2], x[:, 1::2]
            x = torch.cat([left, unit(right)], 1)
        pooled = nn.functional.avg_pool2d(x, 2)
        y = self.wide(self.down(x)) + self.last(pooled)
        return (y, right) if self.seen else y


@cache
def graph_of(seen: bool) -> Graph:
    net = Shuffled(seen).eval()
    return export_tflite(net, torch.zeros(1, 3, 24, 24), Path(_ROOM.name) / str(seen))


def both(graph: Graph, integer: bool, room: Path) -> tuple[list[dict[str, np.ndarray]], set[str]]:
    """The answers of a graph and of what is compiled of it, and the operators of the second."""
    if integer:
        graph = quantize_tflite(graph, images()[:8], GRID, "float32", room / "int8")
    compile(graph, load("tflite"), room / "out")
    path = room / "out" / "model.tflite"
    sessions = [Session({p.name: p.read_bytes()}) for p in (graph.path, path)]
    name = sessions[0].inputs[0].name
    answers = [s.run({name: images()[9:10]}) for s in sessions]
    again = room / "again"
    compile(graph, load("tflite"), again)
    assert (again / "model.tflite").read_bytes() == path.read_bytes()
    return answers, set(flatbuffer.op_counts(flatbuffer.read(path)))


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
def test_they_are_the_same_numbers(integer: bool, tmp_path: Path) -> None:
    (want, got), ops = both(graph_of(seen=False), integer, tmp_path)
    assert not ops & SLOW, "nothing is picked number by number"
    for name, values in want.items():
        assert np.std(values) > 0
        assert np.allclose(got[name], values, rtol=0, atol=0 if integer else 1e-5)


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
def test_what_is_given_out_keeps_its_order(integer: bool, tmp_path: Path) -> None:
    """One half is an output: its channels, and those that it is made of, stay where they are."""
    (want, got), ops = both(graph_of(seen=True), integer, tmp_path)
    assert ops & SLOW
    assert len(want) == 2
    for name, values in want.items():
        assert np.allclose(got[name], values, rtol=0, atol=0 if integer else 1e-5)


def test_a_constant_of_its_own_has_a_name_of_its_own() -> None:
    """Converters share constants; LiteRT's quantizer refuses a file with two of one name."""
    model = flatbuffer.read(graph_of(seen=False).path)
    graph = flatbuffer.graph_of(model)
    first, second = (op for name, op in list(layers.layers(model))[:2])
    second.inputs[2] = first.inputs[2]
    layers.own(model, second, 2)
    assert first.inputs[2] != second.inputs[2]
    names = [graph.tensors[op.inputs[2]].name for op in (first, second)]
    assert len({*names}) == 2
