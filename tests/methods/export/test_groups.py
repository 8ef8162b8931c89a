"""An output of several quantities, from the network to what a bundle's manifest may say of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgecv.fidelity import Tolerance
from edgecv.graph import Graph
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.runtime import manifest
from edgecv.runtime.spec import TensorSpec
from edgecv.target import load
from tests.networks import SIZE, context, conv, seeded

NAMES = ["output[0:4]", "output[4:5]", "output[5:8]"]


class Detector(nn.Module):
    """(N, 64 places, 8): boxes in pixels, an object's probability, those of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        self.boxes, self.object, self.classes = conv(8, 4), conv(8, 1), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        scores = self.object(x).sigmoid(), self.classes(x).sigmoid()
        return torch.cat([self.boxes(x) * 100, *scores], 1).flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Graph]:
    """The float graph in a format, exported once."""

    @cache
    def made(form: str) -> Graph:
        road = import_module(f"edgecv.methods.export.{form}")
        example = torch.zeros(1, 3, SIZE, SIZE)
        network = seeded(Detector).eval()
        found: Graph = getattr(road, f"export_{form}")(
            network, example, tmp_path_factory.mktemp(form)
        )
        return found

    return made


@pytest.mark.parametrize("target", ["cpu", "tflite"])
def test_int8_says_of_each_group_what_it_lost(
    target: str, floats: Callable[[str], Graph], tmp_path: Path
) -> None:
    graph = floats(load(target).graph)
    (spec,) = graph.outputs
    assert (spec.shape, spec.groups, spec.bounds) == ((1, 64, 8), (2, 0, 4, 5, 8), (0.0, 1.0, 1.0))
    assert graph.bounds == {NAMES[1]: 1.0, NAMES[2]: 1.0}
    assert Graph.load(graph.path.parent).outputs == graph.outputs
    ctx = context(tmp_path / "c", target=load(target))
    made, parity = Quantizer(graph, ctx, 16).make(Options(rounding="nearest"), tmp_path / "int8")
    assert list(parity.outputs) == NAMES
    assert parity.sqnr_db == min(p.sqnr_db for p in parity.outputs.values())
    assert made.facts["parity"]["outputs"][NAMES[1]]["axis"] == 2
    assert [t.groups for t in made.outputs] == [spec.groups]
    assert made.bounds == graph.bounds


def test_probabilities_beside_boxes_keep_their_levels_on_the_edge_tpu(
    floats: Callable[[str], Graph], tmp_path: Path
) -> None:
    """On one grid 256 levels over pixels leave nothing of 0 to 1: they are joined in float."""
    ctx = context(tmp_path / "c", target=load("edgetpu"))
    graph, parity = Quantizer(floats("tflite"), ctx, 16).make(
        Options(rounding="nearest"), tmp_path / "int8", Tolerance(6.0, 0.8)
    )
    assert [spec.dtype for spec in graph.outputs] == ["float32"]
    assert all(parity.outputs[name].sqnr_db > 20.0 for name in NAMES[1:])


@pytest.mark.parametrize(
    ("layout", "groups", "whole"),
    [
        ("NCHW", (1, 0, 4, 8), True),
        ("NHWC", (1, 0, 4, 8), False),
        ("NHWC", (1, 0, 2, 6), True),
        ("NCHW", (0, 0, 1), False),
        ("NCHW", (1, 0, 8), False),
        ("NCHW", (1, 0, 9, 8), False),
        ("NCHW", (1, 2, 4, 8), False),
        ("NCHW", (7, 0, 4, 8), False),
    ],
)
def test_a_manifest_names_groups_that_are_parts_of_an_axis(
    layout: str, groups: tuple[int, ...], whole: bool
) -> None:
    tensors = (TensorSpec("out", "float32", (1, 8, 5, 6), layout, groups=groups),)
    if whole:
        manifest._tensors("outputs", tensors)
        return
    with pytest.raises(ValueError, match="has groups"):
        manifest._tensors("outputs", tensors)
