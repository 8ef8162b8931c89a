"""A graph's outputs as tasks read them."""

from __future__ import annotations

from pathlib import Path

from edgecv.graph import Graph
from edgecv.runtime.spec import TensorSpec

HEAT = TensorSpec("output_0", "int8", (1, 16, 24, 3), "NHWC", 0.1, 4)
SIZES = TensorSpec("output_1", "float32", (1, 7, 4))


def graph(*own: str) -> Graph:
    outputs = [TensorSpec(name, "float32", (1,)).to_json() for name in own]
    facts = {"own": {"inputs": [], "outputs": outputs}} if own else {}
    return Graph(Path("net.tflite"), "tflite", "int8", (), (HEAT, SIZES), facts)


def test_outputs_are_called_as_in_the_users_file_channels_first_in_real_numbers() -> None:
    heat, sizes = graph("hm", "wh").shown
    assert heat == TensorSpec("hm", "float32", (1, 3, 16, 24), "NCHW")
    assert sizes == TensorSpec("wh", "float32", (1, 7, 4))


def test_names_of_other_outputs_are_not_taken() -> None:
    assert [s.name for s in graph().shown] == ["output_0", "output_1"]
    assert [s.name for s in graph("hm").shown] == ["output_0", "output_1"]
    assert [s.name for s in graph("output_1", "output_0").shown] == ["output_0", "output_1"]
