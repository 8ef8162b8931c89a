"""A detector's end on the Edge TPU: integers up to its last layers, floats on the CPU behind."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv import target
from edgecv.backends.edgetpu import compile as edgetpu
from edgecv.backends.edgetpu import tail
from edgecv.backends.edgetpu.run import Session
from edgecv.backends.tflite.run import COMPUTE
from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from tests.backends.tflite_graphs import images
from tests.methods.quantize.test_tflite_int8 import logits, sqnr_db

CORAL = target.load("coral-usb")
_ROOM = tempfile.TemporaryDirectory(prefix="edgecv-test-tail-")


class Head(nn.Module):
    """Boxes of hundreds of pixels beside probabilities, cell after cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        boxes = torch.exp(self.boxes(x)) * 300
        found = torch.cat([boxes, torch.sigmoid(self.scores(x))], 1)
        return found.flatten(2).transpose(1, 2)


@cache
def floats() -> Graph:
    torch.manual_seed(0)
    return export_tflite(Head().eval(), torch.zeros(1, 3, 24, 24), Path(_ROOM.name) / "float")


@cache
def made() -> Graph:
    return quantize_tflite(floats(), images(), CORAL.grid, "uint8", Path(_ROOM.name) / "made")


def test_each_of_what_is_joined_keeps_its_own_scale() -> None:
    assert made().inputs[0].dtype == "uint8"
    assert (made().outputs[0].dtype, made().outputs[0].shape) == ("float32", (1, 144, 7))
    want, got = (logits(g, images()) for g in (floats(), made()))
    for part in (slice(0, 4), slice(4, 7)):
        assert (
            sqnr_db(
                want[..., part] - want[..., part].mean(), got[..., part] - want[..., part].mean()
            )
            > 20
        )


def test_the_layers_are_integers_and_what_the_cpu_computes_is_told(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("EDGETPU_COMPILER", raising=False)
    monkeypatch.setenv("PATH", "")
    compiled = edgetpu.compile(made(), CORAL, tmp_path)
    (told,) = (note for note in compiled.notes if "computes in float" in note)
    assert "2 DEQUANTIZE" in told
    assert "1 EXP" in told
    model = flatbuffer.read(tmp_path / "model.tflite")
    behind = tail.of(model, COMPUTE)
    kinds = {
        flatbuffer.op_name(model, op)
        for op in flatbuffer.graph_of(model).operators
        if not any(op is o for o in behind)
    }
    assert kinds == {"QUANTIZE", "CONV_2D", "PAD"}
    assert Session({"m": (tmp_path / "model.tflite").read_bytes()}).executed() == {"int8": 3}


def test_floats_in_front_of_integers_are_refused() -> None:
    model = flatbuffer.read(made().path)
    graph = flatbuffer.graph_of(model)
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, "QUANTIZE")
    last = int(graph.outputs[0])
    graph.tensors.append(flatbuffer.new("TensorT"))
    back = graph.tensors[-1]
    back.shape, back.type, back.name = (
        list(graph.tensors[last].shape),
        flatbuffer.enum("TensorType", "INT8"),
        b"back",
    )
    back.quantization = flatbuffer.new("QuantizationParametersT")
    back.quantization.scale, back.quantization.zeroPoint = [4.0], [0]
    op.inputs, op.outputs = [last], [len(graph.tensors) - 1]
    graph.operators.append(op)
    with pytest.raises(UnsupportedError, match="QUANTIZE has a float tensor"):
        edgetpu.refuse_floats(model, "here")
