"""A file holds what its operators read and make, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("torch")
import torch
from torch import nn

from edgecv import target
from edgecv.backends.tflite.compile import load
from edgecv.backends.tflite.run import Session
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.tflite import export_tflite


class Shuffled(nn.Module):
    """Halves of the channels, one convolved, joined and shuffled, twice (ShuffleNetV2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for layer in (self.a, self.b):
            kept, other = x.chunk(2, 1)
            x = torch.cat([kept, torch.relu(layer(other))], 1)
            x = x.reshape(1, 2, 8, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return self.last(x)


def orphans(content: bytes) -> list[str]:
    """Tensors that no operator and no end of the graph knows."""
    model = flatbuffer.parse(content, "test")
    graph = flatbuffer.graph_of(model)
    known = {int(t) for op in graph.operators for t in (*op.inputs, *op.outputs)}
    known |= {int(t) for t in (*graph.inputs, *graph.outputs)}
    return [t.name.decode() for i, t in enumerate(graph.tensors) if i not in known]


def test_what_was_rewritten_away_is_not_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = export_tflite(Shuffled().eval(), torch.zeros(1, 3, 16, 16), tmp_path)
    assert orphans(graph.path.read_bytes()) == []
    content = load(graph, target.load("tflite"))
    assert content != graph.path.read_bytes()  # the shuffles are the filters' order now
    assert orphans(content) == []
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    said = [
        next(iter(Session({"model.tflite": c}).run({graph.inputs[0].name: x}).values()))
        for c in (graph.path.read_bytes(), content)
    ]
    np.testing.assert_allclose(*said, rtol=1e-5, atol=1e-6)


def test_numbers_follow_the_tensors_that_stay(tmp_path: Path) -> None:
    graph = export_tflite(nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 4, 4), tmp_path)
    model = flatbuffer.parse(graph.path.read_bytes(), "test")
    main, op = flatbuffer.graph_of(model), flatbuffer.graph_of(model).operators[0]
    before = flatbuffer.written(model)
    extra = flatbuffer.new("TensorT")
    extra.name, extra.shape, extra.type, extra.buffer = b"left", [4], 0, 0
    main.tensors.insert(0, extra)
    for owner, side in ((op, "inputs"), (op, "outputs"), (main, "inputs"), (main, "outputs")):
        setattr(owner, side, [int(t) + 1 if t >= 0 else -1 for t in getattr(owner, side)])
    for one in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        one.tensorIndex += 1
    flatbuffer.drop_unread(model)
    assert flatbuffer.written(model) == before


def test_what_an_operator_keeps_for_itself_stays_and_has_a_name(tmp_path: Path) -> None:
    graph = export_tflite(nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 4, 4), tmp_path)
    model = flatbuffer.parse(graph.path.read_bytes(), "test")
    main = flatbuffer.graph_of(model)
    inner = flatbuffer.add_tensor(model, "scratch", [1, 4])
    main.operators[0].intermediates = [inner]
    flatbuffer.tidy(model, (graph.inputs[0].name,), (graph.outputs[0].name,))
    (kept,) = main.operators[0].intermediates
    assert main.tensors[kept].name.decode().startswith("inner_")
    assert list(main.tensors[kept].shape) == [1, 4]
