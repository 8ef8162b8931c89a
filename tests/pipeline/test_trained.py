"""A float bundle is right as often as its network was in PyTorch, or it is an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.bundling.build import check_trained
from edgecv.errors import ParityError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

NETWORKS = """
import torch
from torch import nn


def colours():
    # each channel of the picture is the score of a class, the second and third far too high
    layer = nn.Conv2d(3, 3, 1)
    layer.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
    layer.bias.data = torch.tensor([0.0, 3.0, 6.0])
    return layer


class Running(nn.Module):
    # (x - mean) / deviation, by running figures that a weights file does not hold

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3), persistent=False)
        self.register_buffer("square", torch.ones(3), persistent=False)

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.5)
            self.square.lerp_(x.detach().var(0), 0.5)
        return (x - self.mean) / (self.square + 1e-5).sqrt()


def forgetful():
    return nn.Sequential(colours(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Running())


def batch():
    # brighter in a channel than the others of its batch: alone, no picture is
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    return nn.Sequential(colours(), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
RECIPE = """
model: {module: networks:forgetful}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 24}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 2, batch_size: 16, lr: 1e-6}
targets: [cpu]
"""


@pytest.fixture(scope="module")
def folder(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trained")
    shutil.copytree(project / "images", made / "images")
    (made / "networks.py").write_text(NETWORKS)
    (made / "recipe.yaml").write_text(RECIPE)
    (made / "labels.txt").write_text("ant\nbee\ncat\n")
    return made


def test_what_training_leaves_outside_the_weights(folder: Path, edgecv: Callable) -> None:
    done = edgecv("run", "recipe.yaml", "--out", "out", cwd=folder)
    assert done.code == 1, done.err
    (row,) = json.loads((folder / "out" / "results.json").read_text())["results"]
    assert row["status"] == "failed"
    # a sixth of the test images have another class's colour
    assert "dense.cpu (onnxruntime): is right on 33.33 % of 36 images" in row["reason"]
    assert "on 83.33 % of them in PyTorch" in row["reason"]
    assert "persistent buffer" in row["reason"]


def test_a_network_that_is_right_in_batches_alone(folder: Path, edgecv: Callable) -> None:
    export = ("export", "networks:batch", "--target", "cpu", "--input-size", "24", "--out", "out")
    given = ("--evaluate", "imagefolder:images/test", "--labels", "labels.txt")
    done = edgecv(*export, *given, "--name", "judged", cwd=folder)
    assert done.code == 1, done.out
    assert "on 83.33 % of them in PyTorch" in done.err
    assert "BatchNorm of the batch's own statistics" in done.err
    assert not (folder / "out" / "judged.edgecv").exists()
    done = edgecv(*export, "--name", "alone", cwd=folder)  # nothing says that it is wrong
    assert done.code == 0, done.err
    assert "it mixes the batch; what is exported takes one picture at a time" in done.err


@pytest.mark.parametrize(
    ("found", "trained", "images", "far"),
    [
        (0.90, 0.90, 1000, False),
        (0.885, 0.90, 10_000, False),  # rounding
        (0.87, 0.90, 10_000, True),
        (0.93, 0.90, 10_000, True),  # better is as odd
        (0.88, 0.90, 100, False),  # two pictures
        (35 / 36, 1.0, 36, False),  # one
        (0.5, 1.0, 36, True),
    ],
)
def test_what_is_far(found: float, trained: float, images: int, far: bool) -> None:
    metric = {"value": found, "samples": images}
    if far:
        with pytest.raises(ParityError, match="in PyTorch"):
            check_trained("small.cpu", metric, trained)
    else:
        check_trained("small.cpu", metric, trained)


def test_what_is_not_known_is_not_judged() -> None:
    check_trained("small.cpu", None, 0.9)
    check_trained("small.cpu", {"value": 0.1, "samples": 9}, None)
    check_trained("small.cpu", {"value": 0.86, "samples": 10_000}, 0.9, one_bit=True)


def test_a_task_that_is_said_has_to_be_so(folder: Path, edgecv: Callable) -> None:
    """A map of scores is no row of classes, whatever the command says."""
    (folder / "maps.py").write_text("from networks import colours\n\n\ndef net():\n"
                                    "    return colours()\n")  # fmt: skip
    done = edgecv("export", "maps:net", "--task", "classification", "--target", "cpu",
                  "--input-size", "24", "--out", "maps", cwd=folder)  # fmt: skip
    assert done.code == 2, done.out
    assert "is 1x3x24x24, and classes are a row of scores (1, C)" in done.err
    assert not (folder / "maps").exists()
