"""Limits on the command line: what meets them is searched for, and nothing meeting them is exit 1.

The network has one channel of large activations between two layers: in int8 everything beside it is
rounded away, and these layers in float bring it back. SiLU stands between them: no equalization
mends it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv.runtime.archive import read_bundle

pytest.importorskip("torch")

HOSTILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(16, 6)
        with torch.no_grad():
            self.b.weight[0] *= 60.0
            self.c.weight[:, 0] /= 60.0

    def forward(self, x):
        x = self.a(x).relu()
        x = self.c(nn.functional.silu(x + self.b(x))).relu()
        return self.d(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))

def make():
    torch.manual_seed(0)
    net, images = Net(), torch.rand(64, 3, 3, 3).repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        net.d.weight *= 1e5  # sure answers: a flip costs what it says
        net.d.bias -= net(images).mean(0)
    return net

class Map(Net):
    def forward(self, x):
        x = self.a(x).relu()
        return self.c(nn.functional.silu(x + self.b(x)))

def depth():
    torch.manual_seed(0)
    return Map()
"""
RECIPE = """
model: {module: hostile:depth}
data: {images: photos, size: 24}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - quantize: {name: small, samples: 24, sqnr_db: %s}
targets: [cpu]
"""
OPTIONS = (
    "--target", "cpu", "--calibration", "photos", "--samples", "24", "--input-size", "24",
)  # fmt: skip


NOISE = ("--target", "cpu", "--calibration", "noise.npz", "--json")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A network of two inputs and two outputs, and noise for it."""
    import torch
    from torch import nn

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Conv2d(3, 8, 3, padding=1, stride=2)
            self.b, self.c = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
            self.f = nn.Linear(8, 5)

        def forward(
            self, left: torch.Tensor, depth: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.c(torch.cat([self.a(left).relu(), self.b(depth).relu()], 1)).relu()
            return y, self.f(y.mean((2, 3)))

    sizes = {"left": (3, 48, 48), "depth": (1, 24, 24)}
    torch.onnx.export(
        Two().eval(), tuple(torch.zeros(1, *s) for s in sizes.values()), str(tmp_path / "two.onnx"),
        input_names=list(sizes), output_names=["feat", "vec"], dynamo=False, opset_version=13,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    feeds = {name: rng.random((18, *size), dtype=np.float32) for name, size in sizes.items()}
    np.savez(tmp_path / "noise.npz", **feeds)
    return tmp_path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("limits")
    (folder / "hostile.py").write_text(HOSTILE)
    rng = np.random.default_rng(0)
    for i in range(96):
        place = folder / "photos" / str(i % 3)
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (3, 3, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        image.fromarray(pixels).save(place / f"{i:02}.png")
    return folder


def test_layers_are_kept_float_until_the_limit_is_met(edgecv: Callable, room: Path) -> None:
    options = ("--accuracy-drop", "8", "--out", "found", "--json")
    done = edgecv("export", "hostile:make", *OPTIONS, *options, cwd=room)
    data = json.loads(done.out)
    first, *_, last = [t for t in data["search"]["tried"] if t["figures"]]
    assert first["figures"]["accuracy_drop"] > 8, "int8 alone is not enough"
    assert (done.code, data["search"]["met"]) == (0, True), done.err
    assert {"/Add", "b"} <= set(last["options"]["keep_float"])
    assert last["sqnr_db"] > first["sqnr_db"] + 1
    assert data["executed"]["fp32"] >= 1
    assert data["executed"]["int8"] >= 1
    assert data["limits"]["met"] == ["hostile-int8.cpu"]
    assert read_bundle(room / data["bundle"]).manifest["executed"] == data["executed"]


def test_what_nothing_meets_is_exit_1_with_the_nearest(edgecv: Callable, room: Path) -> None:
    options = ("--size-mb", "0.0001", "--out", "none")
    done = edgecv("export", "hostile:plain", *OPTIONS, *options, cwd=room)
    assert done.code == 1
    assert "met by nothing; nearest hostile-int8.cpu: size_mb" in done.out
    assert list((room / "none").glob("*.edgecv")), "the nearest is there to look at"


def test_without_classes_layers_are_kept_float_until_outputs_are_near_enough(
    edgecv: Callable, room: Path
) -> None:
    (room / "depth.yaml").write_text(RECIPE % 30)
    done = edgecv("run", "depth.yaml", "--out", "depth", "--no-report", cwd=room)
    data = json.loads((room / "depth" / "results.json").read_text())
    (small,) = (r for r in data["results"] if r["step"] == "small")
    first, *_, last = [t for t in small["search"]["tried"] if t["figures"]]
    assert first["figures"]["sqnr_db"] < 30, "what is made without limits is not enough"
    assert (done.code, small["search"]["met"]) == (0, True), done.err
    assert last["options"]["keep_float"]
    assert small["parity"]["float"]["sqnr_db"] >= 30
    assert small["executed"]["int8"] >= 1
    assert "sqnr_db 30 dB) met by small.cpu" in done.out


def test_what_no_limit_gives_is_the_first_candidate(edgecv: Callable, two: Path) -> None:
    """Where it meets the limit nothing else is tried: all images are calibrated on, and the guard
    of layers that are far off has run."""
    done = edgecv("export", "two.onnx", *NOISE, "--sqnr-db", "20", "--out", "limited", cwd=two)
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert len(data["search"]["tried"]) == 1
    assert data["search"]["met"]
    assert data["parity"]["float"]["sqnr_db"] >= 20


def test_folders_named_by_numbers_are_the_outputs(edgecv: Callable, room: Path) -> None:
    options = ("--evaluate", "imagefolder:photos", "--out", "judged")
    done = edgecv("export", "hostile:plain", *OPTIONS, *options, cwd=room)
    assert done.code == 0, done.err
    assert "on 96 images" in done.out


def test_folders_named_by_no_output_are_refused(edgecv: Callable, room: Path) -> None:
    (room / "labels.txt").write_text("cat\ndog\nfox\nowl\nape\nbat\n")
    for source, name in (("0", "cat"), ("1", "dg")):
        shutil.copytree(room / "photos" / source, room / "animals" / name)
    options = ("--labels", "labels.txt", "--evaluate", "imagefolder:animals", "--out", "refused")
    done = edgecv("export", "hostile:plain", *OPTIONS, *options, cwd=room)
    assert done.code == 2
    assert "class 'dg' is no output of the network (did you mean 'dog'?)" in done.err


def test_folders_named_by_words_need_the_outputs_names(edgecv: Callable, room: Path) -> None:
    for i in range(2):
        shutil.copytree(room / "photos" / str(i), room / "named" / "ab"[i])
    options = ("--evaluate", "imagefolder:named", "--out", "unknown")
    done = edgecv("export", "hostile:plain", *OPTIONS, *options, cwd=room)
    assert done.code == 2
    assert "class 'a' is a name, and the network's outputs have none (give --labels" in done.err
    assert not (room / "unknown").exists()


@pytest.mark.parametrize("option", ["--accuracy-drop", "--latency-ms", "--size-mb", "--sqnr-db"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_limit_is_a_number(edgecv: Callable, room: Path, option: str, value: str) -> None:
    done = edgecv("export", "hostile:plain", *OPTIONS, f"{option}={value}", "--out", "x", cwd=room)
    assert done.code == 2
    assert "a number above 0" in done.err


def test_int8_stands_beside_fp32_without_limits(
    edgecv: Callable, project: Path, tmp_path: Path
) -> None:
    folders = project / "images" / "test"
    options = ("--target", "cpu", "--calibration", "images/train", "--input-size", "24", "--json",
               "--evaluate", "imagefolder:images/test", "--labels", tmp_path / "names")  # fmt: skip
    (tmp_path / "names").write_text("".join(f"{p.name}\n" for p in sorted(folders.iterdir())))
    found = {}
    for precision in ("fp32", "int8"):
        out = tmp_path / precision
        done = edgecv("export", "mynet:make", *options, "--precision", precision, "--out", out,
                      cwd=project)  # fmt: skip
        assert done.code == 0, done.err
        assert len(list(out.glob("*.edgecv"))) == 1  # what stands beside it is not what was asked
        found[precision] = json.loads(done.out)["metric"]
    assert found["int8"]["reference"] == found["fp32"]["value"]
    assert "reference" not in found["fp32"]


@pytest.mark.parametrize(
    ("value", "said"), [(0.3, "2.00 points below fp32's 32.00"), (0.34, "2.00 points above")]
)
def test_what_was_lost_is_said_beside_the_accuracy(value: float, said: str) -> None:
    from edgecv.commands.export_output import metric_line

    metric = {"name": "top1", "value": value, "samples": 64, "reference": 0.32}
    assert said in metric_line(metric)
    assert "fp32" not in metric_line({**metric, "reference": None})
