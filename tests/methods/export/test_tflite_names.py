"""A weight of a .tflite file gets the name of the layer that it is of, and never another's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.backends.tflite.run import Session
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export._tflite_names import copy_names, name_weights
from tests.backends.tflite_graphs import float_graph, int8_graph, net

NAMES = [f"{layer}.weight" for layer in ("stem.0", "a.0", "b", "down", "wide", "head")]
OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def weights(model) -> list[str]:
    graph = flatbuffer.graph_of(model)
    held = [op for op in graph.operators if flatbuffer.op_name(model, op) in OPERATORS]
    return [graph.tensors[int(op.inputs[1])].name.decode() for op in held]


def test_every_weight_is_named_after_its_layer():
    """Of which one was folded with a batch normalisation and one is depthwise."""
    model = flatbuffer.read(float_graph().path)
    assert name_weights(model, net().state_dict()) == len(NAMES)
    assert weights(model) == NAMES


def test_another_networks_layers_are_not_taken_for_these():
    state = {name: torch.randn(value.shape) for name, value in net().state_dict().items()}
    model = flatbuffer.read(float_graph().path)
    before = weights(model)
    assert name_weights(model, state) == 0
    assert weights(model) == before


def test_twins_are_not_told_apart():
    state = net().state_dict()
    state["twin.weight"] = -2 * state["b.weight"]
    model = flatbuffer.read(float_graph().path)
    for tensor in flatbuffer.graph_of(model).tensors:  # exporting has named them already
        tensor.name = b"unnamed"
    assert name_weights(model, state) == len(NAMES) - 1
    assert "b.weight" not in weights(model)


def test_channels_that_are_zero_say_nothing():
    state = net().state_dict()
    state["b.weight"][0] = 0
    model = flatbuffer.read(float_graph().path)
    assert name_weights(model, state) == len(NAMES)


def test_the_quantized_file_takes_the_float_ones_names_and_runs(tmp_path: Path):
    floats, model = flatbuffer.read(float_graph().path), flatbuffer.read(int8_graph("uint8").path)
    name_weights(floats, net().state_dict())
    copy_names(model, floats)
    assert weights(model) == NAMES
    flatbuffer.write(model, tmp_path / "named.tflite")
    assert Session({"m": (tmp_path / "named.tflite").read_bytes()}).executed() == {"int8": 6}


def test_files_of_two_networks_are_not_mixed_up():
    floats, model = flatbuffer.read(float_graph().path), flatbuffer.read(int8_graph().path)
    flatbuffer.graph_of(model).operators.pop()
    with pytest.raises(ValueError):
        copy_names(model, floats)
