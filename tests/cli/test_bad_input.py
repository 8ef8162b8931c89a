"""Every kind of bad input through the real command: exit 2, one line, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPE = """
model: {module: mynet:make, width: 16}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 24}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 1, batch_size: 16}
  - prune: {name: small, ratio: 0.5, finetune_epochs: 0, align: 4}
  - quantize: {name: small-int8, precision: int8}
targets: [cpu]
"""

# Networks that a user may bring by mistake.
NETWORKS = """
import torch
from torch import nn

import mynet


class Pair(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.inner = mynet.make(classes=classes)

    def forward(self, x):
        y = self.inner(x)
        return y, y


class Odd(Pair):
    def forward(self, x):
        return self.inner(x), {1}


class Cold(Pair):
    # NaN in training only, as a bad loss scale gives it
    def forward(self, x):
        y = self.inner(x)
        return y * float("nan") if self.training else y


def pair(classes=2):
    return Pair(classes)


def odd(classes=2):
    return Odd(classes)


def nan_loss(classes=3):
    return Cold(classes)


def nan_weights(classes=2):
    module = mynet.make(classes=classes)
    with torch.no_grad():
        module[3].weight[0, 0] = float("nan")
    return module


def ten_classes(classes=2):
    return mynet.make(classes=10)


def no_module(classes=2):
    return "resnet"


def raises(classes=2):
    raise ValueError("no such width")
"""


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """A user's folder of one's own, to break."""
    made = tmp_path / "mine"
    shutil.copytree(project, made, ignore=shutil.ignore_patterns("out", "__pycache__"))
    (made / "recipe.yaml").write_text(RECIPE)
    (made / "broken.py").write_text(NETWORKS)
    return made


def refused(done: Any, folder: Path, *said: str) -> str:
    """Assert exit 2, one line that says all of `said`, and nothing half-written; the line."""
    assert done.code == 2, done.err
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert line.count(": ") >= 2, "where: what"
    for words in said:
        assert words in line
    out = folder / "out"
    if out.exists():
        left = {p.name for p in out.iterdir()}
        assert left <= {"store"}, left
        assert not list((out / "store").glob("partial/*/*"))
        assert not [p for p in out.rglob("*") if p.suffix in (".tmp", ".edgecv")]
    return line


def changed(old: str, new: str) -> Callable[[Path], None]:
    """A case whose recipe has other words in it."""

    def change(folder: Path) -> None:
        assert RECIPE.count(old) == 1
        (folder / "recipe.yaml").write_text(RECIPE.replace(old, new))

    return change


def npz(labels: list[int], **more: Any) -> Callable[[Path], None]:
    """A case with its data in an .npz file."""

    def change(folder: Path) -> None:
        images = np.zeros((len(labels), 24, 24, 3), np.uint8)
        np.savez(folder / "data.npz", images=images, labels=np.array(labels), **more)
        text = RECIPE.replace("imagefolder:images/train", "npz:data.npz")
        (folder / "recipe.yaml").write_text(text.replace("imagefolder:images/test", "npz:data.npz"))

    return change


def no_stages(folder: Path) -> None:
    lines = [line for line in RECIPE.splitlines() if not line.startswith("  - ")]
    text = "\n".join(lines).replace("stages:", "stages: []")
    (folder / "recipe.yaml").write_text(text)


def one_class(folder: Path) -> None:
    for name in ("bee", "cat"):
        shutil.rmtree(folder / "images" / "train" / name)


def empty_class(folder: Path) -> None:
    for path in (folder / "images" / "train" / "bee").iterdir():
        path.unlink()


def no_class_folders(folder: Path) -> None:
    shutil.rmtree(folder / "images" / "train")
    (folder / "images" / "train").mkdir()


def other_classes(folder: Path) -> None:
    (folder / "images" / "test" / "bee").rename(folder / "images" / "test" / "bug")


def truncated_jpeg(folder: Path) -> None:
    path = folder / "images" / "train" / "cat" / "07.jpg"
    path.write_bytes(path.read_bytes()[:300])


def truncated_npz(folder: Path) -> None:
    npz([0, 1, 2, 0])(folder)
    path = folder / "data.npz"
    path.write_bytes(path.read_bytes()[:500])


def onnx_file(size: int | None, dynamic: bool = False) -> Callable[[Path], None]:
    """A case whose model is net.onnx: its first `size` bytes (None: no file), or a dynamic one."""

    def change(folder: Path) -> None:
        onnx = pytest.importorskip("onnx")
        from tests.runtime.conftest import network

        data = network(size=24)
        if dynamic:
            model = onnx.load_from_string(data)
            for axis, name in ((2, "height"), (3, "width")):
                model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
            data = model.SerializeToString()
        if size is not None:
            (folder / "net.onnx").write_bytes(data[:size])
        text = RECIPE.replace("{module: mynet:make, width: 16}", "net.onnx")
        lines = [x for x in text.splitlines() if "- train:" not in x and "- prune:" not in x]
        (folder / "recipe.yaml").write_text("\n".join(lines))

    return change


WHOLE = 1 << 20


@dataclass(frozen=True)
class Case:
    """name, what is broken, what the one line says, and options of `edgecv run`."""

    name: str
    broken: Callable[[Path], None]
    said: tuple[str, ...]
    options: tuple[str, ...] = ()


def broken_network(function: str) -> Callable[[Path], None]:
    return changed("{module: mynet:make, width: 16}", f"{{module: broken:{function}}}")


def nothing(folder: Path) -> None:
    """The recipe is good; an option is not."""


RUNS = (
    # unknown words
    Case("stage", changed("- prune:", "- prnue:"), ("recipe.yaml:7", "prnue", "prune")),
    Case("key", changed("ratio:", "raito:"), ("recipe.yaml:7", "'raito'", "did you mean 'ratio'")),
    Case("top-key", changed("targets:", "target:"), ("recipe.yaml:9", "did you mean 'targets'")),
    Case("data-key", changed("size: 24", "sise: 24"), ("recipe.yaml:3", "did you mean 'size'")),
    Case("from", changed("quantize: {", "quantize: {from: smal, "), ("did you mean 'small'",)),
    Case("setting", nothing, ("raito", "'ratio'"), ("--set", "prune.raito=0.5")),
    Case("zoo", changed("{module: mynet:make, width: 16}", "resnet7"), ("resnet7", "resnet8")),
    Case("target", changed("[cpu]", "[cpuu]"), ("cpuu", "did you mean")),
    Case("target-option", nothing, ("jetson-onin", "jetson-orin"), ("--target", "jetson-onin")),
    Case("source", changed("imagefolder:images/train", "imgfolder:images/train"),
         ("did you mean imagefolder",)),
    # types and ranges
    Case("ratio", changed("ratio: 0.5", "ratio: 1.5"), ("recipe.yaml:7", "prune.ratio", "1.5")),
    Case("set-ratio", nothing, ("prune.ratio", "1.5"), ("--set", "prune.ratio=1.5")),
    Case("epochs", changed("epochs: 1,", "epochs: many,"), ("train.epochs", "'many'")),
    Case("size", changed("size: 24", "size: 0"), ("data.size", "1 and 4096", "0")),
    Case("mean", changed("size: 24", "size: 24, mean: [127], std: [0.2]"),
         ("data", "0..255 and the other like 0..1")),
    Case("seed", nothing, ("seed", "-1"), ("--set", "seed=-1")),
    Case("yaml", changed("targets: [cpu]", "targets: [cpu"), ("recipe.yaml", "not valid YAML")),
    Case("no-stages", no_stages, ("recipe.yaml:5: stages", "at least one stage")),
    Case("precision", changed("quantize: {name: small-int8, precision: int8}", "export: {}"),
         ("edgetpu", "does not offer fp32", "int8"), ("--target", "edgetpu")),
    Case("int4", changed("precision: int8", "precision: int4"), ("precision", "int4", "int8")),
    # layers, looked for before anything trains: nothing is there but the images
    Case("keep", changed("ratio: 0.5", "ratio: 0.5, keep: ['9.*']"),
         ("small: no layer matches '9.*'", "its layers: 0, 3, 8")),
    # missing files
    Case("images", changed("images/train", "photos/train"), ("photos/train", "no such folder")),
    Case("npz", changed("imagefolder:images/train", "npz:no.npz"), ("no.npz", "no such file")),
    Case("module", changed("mynet:make", "mynett:make"), ("mynett", "mynett.py")),
    Case("function", changed("mynet:make", "mynet:mkae"), ("mkae", "did you mean 'make'")),
    Case("onnx", onnx_file(None), ("net.onnx", "no such file")),
    # images and labels
    Case("one-class", one_class, ("images/train", "only one class", "'ant'")),
    Case("empty-class", empty_class, ("images/train/bee", "without images")),
    Case("no-classes", no_class_folders, ("images/train", "no class folders")),
    Case("other-classes", other_classes, ("data.test", "'bug'", "'bee'")),
    Case("jpeg", truncated_jpeg, ("images/train/cat/07.jpg", "cannot be read as an image")),
    Case("labels", npz([0, 1, 5, 1], classes=["a", "b", "c"]), ("data.npz", "label 5 of image 2")),
    Case("negative", npz([0, 1, -1, 1]), ("data.npz", "label -1 of image 2")),
    Case("cut-npz", truncated_npz, ("data.npz", "truncated")),
    # networks
    Case("tuple", broken_network("pair"), ("broken:pair", "returns a tuple", "logits")),
    Case("nan-weights", broken_network("nan_weights"), ("broken:nan_weights", "'3.weight'", "NaN")),
    Case("classes", broken_network("ten_classes"), ("ten_classes", "10 outputs", "3 classes")),
    Case("no-network", broken_network("no_module"), ("broken:no_module", "a str")),
    Case("raises", broken_network("raises"), ("broken:raises", "ValueError", "no such width")),
    Case("onnx-cut", onnx_file(400), ("net.onnx", "truncated")),
    Case("onnx-classes", onnx_file(WHOLE), ("net.onnx", "5 outputs", "3 classes")),
    Case("onnx-dynamic", onnx_file(WHOLE, dynamic=True), ("net.onnx", "5 outputs", "3 classes")),
    Case("onnx-until", changed("{module: mynet:make, width: 16}", "{onnx: n.onnx, until: [1]}"),
         ("recipe.yaml:2", "model.until", "takes names")),
    Case("onnx-trained", changed("{module: mynet:make, width: 16}", "net.onnx"),
         ("recipe.yaml:6", "quantize or export")),
)  # fmt: skip


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.name)
def test_run_refuses(edgecv: Callable, folder: Path, case: Case) -> None:
    pytest.importorskip("torch")
    case.broken(folder)
    done = edgecv("run", "recipe.yaml", "--out", "out", "--json", *case.options, cwd=folder)
    refused(done, folder, *case.said)


def test_plan_refuses_and_writes_nothing(edgecv: Callable, folder: Path) -> None:
    one_class(folder)
    done = edgecv("plan", "recipe.yaml", "--out", "out", cwd=folder)
    refused(done, folder, "only one class")
    assert not (folder / "out").exists()


def test_a_nan_loss_stops_the_run_and_what_was_made_before_is_kept(
    edgecv: Callable, folder: Path
) -> None:
    pytest.importorskip("torch")
    broken_network("nan_loss")(folder)
    options = ("--out", "out", "--json")
    done = edgecv("run", "recipe.yaml", *options, cwd=folder)
    refused(done, folder, "dense: loss is nan at epoch 1", "lower lr")
    (folder / "recipe.yaml").write_text(RECIPE)
    plan = json.loads(edgecv("plan", "recipe.yaml", *options, cwd=folder).out)
    actions = {node["node"]: node["action"] for node in plan["nodes"]}
    assert (actions["data:train"], actions["dense"]) == ("reuse", "run")


EXPORTS = (
    Case("option", nothing, ("unrecognized arguments: --targt", "did you mean --target?"),
         ("mynet:make", "--targt", "cpu")),
    Case("blanks", nothing, ("unrecognized arguments: 0.5 0.5", "--mean M[,M,M]"),
         ("mynet:make", "--target", "cpu", "--mean", "0.5", "0.5", "0.5")),
    Case("elsewhere", nothing, ("unrecognized arguments: --profile", "it is an option of bench"),
         ("mynet:make", "--target", "cpu", "--out", "x", "--profile")),
    Case("photo", lambda f: (f / "cat.jpg").write_bytes(b"\xff\xd8"),
         ("cat.jpg", "is not a network that can be read"), ("./cat.jpg", "--target", "cpu")),
    Case("target", nothing, ("cpuu", "did you mean"), ("mynet:make", "--target", "cpuu")),
    Case("precision", nothing, ("--precision", "does not offer fp32", "int8"),
         ("mynet:make", "--target", "edgetpu")),
    Case("int8", nothing, ("--calibration", "folder of images"),
         ("mynet:make", "--target", "cpu", "--precision", "int8")),
    Case("empty", lambda f: (f / "none").mkdir(), ("none", "holds no images"),
         ("mynet:make", "--target", "cpu", "--calibration", "none")),
    Case("no-folder", nothing, ("nowhere", "no such folder"),
         ("mynet:make", "--target", "cpu", "--calibration", "nowhere")),
    Case("jpeg", truncated_jpeg, ("cat/07.jpg", "cannot be read"),
         ("mynet:make", "--target", "cpu", "--calibration", "images/train")),
    Case("missing-onnx", nothing, ("no.onnx", "no such file"), ("no.onnx", "--target", "cpu")),
    Case("onnx-cut", onnx_file(400), ("net.onnx", "truncated"),
         ("net.onnx", "--target", "cpu")),
    Case("onnx-dynamic", onnx_file(WHOLE, dynamic=True), ("net.onnx", "height"),
         ("net.onnx", "--target", "cpu")),
    Case("onnx-pointer", lambda f: (f / "net.onnx").write_text("version https://git-lfs.git"),
         ("net.onnx", "Git LFS pointer"), ("net.onnx", "--target", "cpu")),
    Case("onnx-until", onnx_file(WHOLE), ("net.onnx", "'cc'", "did you mean 'c'"),
         ("net.onnx", "--target", "cpu", "--until", "cc")),
    Case("onnx-output", onnx_file(WHOLE), ("net.onnx", "'score'", "did you mean 'scores'"),
         ("net.onnx", "--target", "cpu", "--output", "score")),
    Case("onnx-shape", onnx_file(WHOLE), ("--input image", "1x3xHxW", "no shape"),
         ("net.onnx", "--target", "cpu", "--input", "image:1x3xHxW")),
    Case("onnx-no-name", onnx_file(WHOLE), ("--input 1x3x24x24", "names no input"),
         ("net.onnx", "--target", "cpu", "--input", "1x3x24x24")),
    Case("onnx-batch", onnx_file(WHOLE), ("net.onnx", "batch is fixed to 1, not 4"),
         ("net.onnx", "--target", "cpu", "--batch", "4")),
    Case("until", nothing, ("--until", ".onnx files"),
         ("mynet:make", "--target", "cpu", "--until", "c")),
    Case("onnx-size", onnx_file(WHOLE), ("--input-size", "32", "24"),
         ("net.onnx", "--target", "cpu", "--input-size", "32")),
    Case("set", nothing, ("broken:odd", "returns a set in 'output_1'"),
         ("broken:odd", "--target", "cpu", "--arg", "classes=3")),
    Case("weights-none", nothing, ("none.pt", "no such file"),
         ("mynet:make", "--target", "cpu", "--weights", "none.pt")),
    Case("no-script", nothing, ("net.pt2", "no such file"), ("net.pt2", "--target", "cpu")),
    Case("weights-of-file", nothing, ("--weights", "holds weights of its own"),
         ("net.onnx", "--target", "cpu", "--weights", "none.pt")),
    Case("checkpoint", lambda f: (f / "best.ckpt").write_bytes(b"\x80\2" + bytes(99)),
         ("best.ckpt", "--weights best.ckpt"),
         ("best.ckpt", "--target", "cpu")),
    Case("weights-cut", lambda f: (f / "w.pt").write_bytes(b"PK\3\4" + bytes(200)),
         ("w.pt", "damaged"), ("mynet:make", "--target", "cpu", "--weights", "w.pt")),
    Case("nan-weights", nothing, ("broken:nan_weights", "NaN"),
         ("broken:nan_weights", "--target", "cpu", "--arg", "classes=3")),
    Case("argument", nothing, ("--arg classes",),
         ("mynet:make", "--target", "cpu", "--arg", "classes")),
    Case("unknown-argument", nothing, ("mynet:make", "depth"),
         ("mynet:make", "--target", "cpu", "--arg", "depth=3")),
    Case("folder", nothing, ("images/train",), ("images/train", "--target", "cpu")),
    Case("zoo", nothing, ("resnet9", "resnet8"), ("resnet9", "--target", "cpu")),
    Case("units", nothing, ("--mean, --std", "units of 0..1 or of 0..255"),
         ("mynet:make", "--target", "cpu", "--mean", "2", "--std", "3")),
    Case("mean", nothing, ("--mean", "grey"),
         ("mynet:make", "--target", "cpu", "--mean", "grey")),
    Case("std", nothing, ("std", "above 0"),
         ("mynet:make", "--target", "cpu", "--mean", "127", "--std", "0")),
    Case("crop", nothing, ("crop", "1.5"),
         ("mynet:make", "--target", "cpu", "--crop-pct", "1.5")),
    Case("size", nothing, ("--input-size", "big"),
         ("mynet:make", "--target", "cpu", "--input-size", "big")),
    Case("labels-file", nothing, ("no.txt", "cannot be read"),
         ("mynet:make", "--target", "cpu", "--labels", "no.txt")),
    Case("labels-count", lambda f: (f / "two.txt").write_text("a\nb\n"), ("10 outputs", "2 cl"),
         ("broken:ten_classes", "--target", "cpu", "--labels", "two.txt")),
)  # fmt: skip


@pytest.mark.parametrize("case", EXPORTS, ids=lambda case: case.name)
def test_export_refuses(edgecv: Callable, folder: Path, case: Case) -> None:
    pytest.importorskip("torch")
    case.broken(folder)
    size = () if {"net.onnx", "--input-size"} & {*case.options} else ("--input-size", "24")
    command = ("export", *case.options, *size, "--out", "out", "--json")
    refused(edgecv(*command, cwd=folder), folder, *case.said)
    assert not (folder / "out").exists()


def test_a_file_in_the_place_of_out(edgecv: Callable, folder: Path) -> None:
    (folder / "taken").write_text("mine")
    for command in (("run", "recipe.yaml"), ("export", "mynet:make", "--target", "cpu")):
        done = edgecv(*command, "--out", "taken", cwd=folder)
        refused(done, folder, "taken", "is a file")
    assert (folder / "taken").read_text() == "mine"


def test_two_runs_do_not_share_one_out(edgecv: Callable, folder: Path) -> None:
    from edgecv.plan.store import Store

    with Store(folder / "out" / "store").locked():
        done = edgecv("run", "recipe.yaml", "--out", "out", "--json", cwd=folder)
    refused(done, folder, "another run is writing here")


# a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """disk(kb) -> a file system of that size; called again, the same with another size."""
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("needs root on Linux to mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()

    def size(kb: int) -> Path:
        mounted = place.is_mount()
        options = f"{'remount,' if mounted else ''}size={kb}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        return place

    yield size
    if place.is_mount():
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_loses_nothing(edgecv: Callable, folder: Path, disk: Callable) -> None:
    pytest.importorskip("torch")
    kept: dict[str, int] = {}
    for kb in (100, 300, 420, 560):  # full in the data, the network, training, a bundle
        out = disk(kb) / "out"
        done = edgecv("run", "recipe.yaml", "--out", out, "--json", cwd=folder)
        assert done.code == 2, (kb, done.err)
        (line,) = done.err.splitlines()
        assert "no space left" in line.lower()
        assert "Traceback" not in line
        found = {p.parent.name: p.stat().st_ino for p in out.glob("store/done/*/key.json")}
        assert {k: found.get(k) for k in kept} == kept
        assert not (out / "results.json").exists()
        kept = found
    assert len(kept) >= 5
    out = disk(20_000) / "out"
    done = edgecv("run", "recipe.yaml", "--out", out, cwd=folder)
    assert done.code == 0, done.err
    found = {p.parent.name: p.stat().st_ino for p in out.glob("store/done/*/key.json")}
    assert {k: found.get(k) for k in kept} == kept
    assert edgecv("verify", *sorted((out / "bundles").iterdir())).code == 0
    assert not list(out.rglob("*.tmp"))
