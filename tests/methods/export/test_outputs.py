"""Networks of any outputs and inputs, exported on both roads and held against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.backends.onnxruntime.run import Session
from edgecv.backends.tflite.run import Session as TfliteSession
from edgecv.errors import ModelError
from edgecv.examples import example_of, zeros
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.export.tflite import export_tflite
from edgecv.outputs import outputs_of

SHAPE = (1, 3, 16, 16)


@dataclass
class Answer:
    tokens: Tensor
    classes: Tensor
    loss: Tensor | None = None


class Body(nn.Module):
    """Convolutions that every network here begins with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.norm, self.head, self.map = nn.BatchNorm2d(16), nn.Linear(16, 4), nn.Conv2d(16, 5, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)

    def body(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.down(torch.relu(self.conv(x)))))


class UNet(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return F.interpolate(self.map(y), scale_factor=2) + self.up(y)[:, :5]


class Keypoints(Body):
    def forward(self, x: Tensor) -> dict:
        y = self.body(x)
        maps, row = self.map(y), self.head(y.mean((2, 3)))
        return {"maps": maps.sigmoid(), "fields": [maps, row], "again": row, "stride": 2}


class Tokens(Body):
    def forward(self, x: Tensor) -> Answer:
        y = self.body(x).flatten(2).transpose(1, 2)
        return Answer(y, self.head(y.mean(1)))


class Head(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.map(F.adaptive_avg_pool2d(self.body(x), 1))


class Whole(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.map(self.body(x))
        return y.argmax(1), y > 0


NETWORKS = (UNet, Keypoints, Tokens, Head, Whole)
EXPECTED = {
    "UNet": {"output": (1, 5, 16, 16)},
    "Keypoints": {"maps": (1, 5, 8, 8), "fields_0": (1, 5, 8, 8), "fields_1": (1, 4)},
    "Tokens": {"tokens": (1, 64, 16), "classes": (1, 4)},
    "Head": {"output": (1, 5, 1, 1)},
    "Whole": {"output_0": (1, 8, 8), "output_1": (1, 5, 8, 8)},
}


def image() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def same(module: nn.Module, found: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        wanted = outputs_of(module(image())).tensors
    assert list(wanted) == list(found)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("make", NETWORKS)
def test_onnx_has_every_output_by_its_name(make, tmp_path: Path) -> None:
    module = make().eval()
    graph = export_onnx(module, torch.zeros(SHAPE), tmp_path)
    assert {t.name: t.shape for t in graph.outputs} == EXPECTED[make.__name__]
    session = Session({"m": graph.path.read_bytes()})
    found = session.run({"input": image().numpy()})
    same(module, {t.name: found[t.name] for t in graph.outputs})
    assert {p for p, _ in module.named_parameters()} >= {"conv.weight"}, "layers keep their names"


def test_what_is_left_out_is_among_the_notes(tmp_path: Path) -> None:
    graph = export_onnx(Keypoints(), torch.zeros(SHAPE), tmp_path)
    said = " ".join(graph.facts["notes"])
    assert "'again' is left out: it is 'fields_1' again" in said
    assert "'stride' is left out" in said


def test_tflite_has_every_output_by_its_name(tmp_path: Path) -> None:
    module = Keypoints().eval()
    graph = export_tflite(module, torch.zeros(SHAPE), tmp_path)
    session = TfliteSession({"m": graph.path.read_bytes()})
    found = session.run({"input": image().permute(0, 2, 3, 1).contiguous().numpy()})
    last = {t.name for t in graph.outputs if t.layout == "NHWC"}
    assert last == {"maps", "fields_0"}
    first = {n: v.transpose(0, 3, 1, 2) if n in last else v for n, v in found.items()}
    same(module, {t.name: first[t.name] for t in graph.outputs})
    assert any("'again' is left out" in note for note in graph.facts["notes"])


class Several(Body):
    def forward(self, image: Tensor, pose: Tensor | None = None, scale: Tensor | None = None):
        y = self.head(self.body(image).mean((2, 3)))
        y = y if pose is None else y * pose
        return y if scale is None else y + scale


@pytest.mark.parametrize("form", ["by name", "in order"])
def test_several_inputs_are_called_as_the_arguments_of_forward(form: str) -> None:
    given = {"pose": torch.ones(1, 4), "image": torch.zeros(SHAPE)}
    example = given if form == "by name" else (given["image"], given["pose"])
    found = example_of(Several(), example, "mine:make")
    assert {name: tuple(x.shape) for name, x in found.items()} == {"image": SHAPE, "pose": (1, 4)}
    assert list(found) == ["image", "pose"]
    assert list(zeros(Several(), {"pose": (1, 4), "image": SHAPE}, "mine:make")) == list(found)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("image", "pos"), "takes no input 'pos'"),
        (("image", "scale"), "input 'pose' has no shape, and stands before 'scale'"),
    ],
)
def test_inputs_that_forward_does_not_take_are_named(names, said: str) -> None:
    shapes = {name: SHAPE if name == "image" else (1, 4) for name in names}
    with pytest.raises(ModelError, match=said):
        zeros(Several(), shapes, "mine:make")
