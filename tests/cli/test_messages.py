"""What typical mistakes of new users are answered, sentence by sentence: `messages.txt`.

The file is the record of what people read. Where a sentence is changed on purpose:

    PYTHONPATH=. COLUMNS=200 python tests/cli/test_messages.py    # writes it anew: read the change
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecv.cli import main

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "messages.txt"
NETWORK = """
from torch import nn


def make(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 2))
"""
RECIPE = """
model: {module: mynet:make}
data: {train: imagefolder:images, test: imagefolder:images, size: 16}
stages:
  - train: {name: dense, epochs: 1}
  - prune: {name: small, ratio: 0.5}
  - quantize: {name: small-int8}
targets: [cpu]
"""
RECIPES = {
    "good": RECIPE,
    "stage": RECIPE.replace("- prune:", "- prun:"),
    "key": RECIPE.replace("epochs", "epoch"),
    "number": RECIPE.replace("epochs: 1", "epochs: many"),
    "target": RECIPE.replace("[cpu]", "[gpu]"),
    "yaml": RECIPE.replace("stages:\n", "stages:\n\t"),
    "empty": "",
    "no-data": RECIPE.replace("imagefolder:images", "imagefolder:pictures"),
    "no-kind": RECIPE.replace("imagefolder:images", "images"),
    "no-model": RECIPE.replace("model: {module: mynet:make}\n", ""),
    "no-network": RECIPE.replace("mynet:make", "mynet:build"),
    "no-module": RECIPE.replace("mynet:make", "othernet:make"),
    "twice": RECIPE.replace("name: small-int8", "name: small"),
}
EXPORT = "export mynet:make --target cpu --input-size 16 --out out"
COMMANDS = (
    "exprt net.onnx",
    "export",
    "export net.onnx --target cpu",
    "export missing.onnx --target cpu --out out",
    "export notes.txt --target cpu --out out",
    "export broken.onnx --target cpu --out out",
    "export resnet81 --target cpu --out out",
    "export mynet --target cpu --out out",
    "export mynet:build --target cpu --out out",
    "export othernet:make --target cpu --out out",
    "export mynet:make --target gpu --out out",
    "export mynet:make --targt cpu --out out",
    "export mynet:make --target cpu --input-size big --out out",
    EXPORT + " --precision int8",
    EXPORT + " --precision int4",
    EXPORT + " --calibration missing",
    EXPORT + " --calibration empty",
    EXPORT + " --calibration notes.txt",
    EXPORT + " --mean 1 2 3",
    EXPORT + " --mean red",
    EXPORT + " --arg width",
    EXPORT + " --arg depth=3",
    EXPORT + " --evaluate images",
    EXPORT + " --evaluate imagefolder:missing",
    EXPORT + " --weights missing.pth",
    EXPORT + " --labels missing.txt",
    EXPORT,
    EXPORT + " --calibration images",
    EXPORT + " --calibration images --evaluate imagefolder:images",
    *(f"plan {name}.yaml" for name in RECIPES if name != "good"),
    "plan missing.yaml",
    "plan good.yaml --target cpu,openvino --set prune.align=4",
    "plan good.yaml --set prune.ration=0.4",
    "plan good.yaml --set prune.ratio=1.5",
    "plan good.yaml --set prune.ratio",
    "bench missing.edgecv",
    "bench notes.txt",
    "verify broken.edgecv",
    "inspect images",
    "why notes.txt",
    "parity notes.txt",
    "predict missing.edgecv photo.jpg",
    "predict notes.txt images",
    "gate missing.json notes.txt",
    "report images",
    "report missing",
)


def fill(folder: Path) -> None:
    """A newcomer's folder."""
    from PIL import Image

    (folder / "mynet.py").write_text(NETWORK)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    for name in ("notes.txt", "broken.onnx", "broken.edgecv"):
        (folder / name).write_text("Buy milk.\n")
    (folder / "empty").mkdir()
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")


def answer(command: str) -> str:
    """Exit code and stderr, times and versions left out."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(shlex.split(command))
        except SystemExit as e:  # argparse
            code = int(e.code or 0)
    text = re.sub(r"\d+\.\d s\b", "0.0 s", said.getvalue())
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join([f"$ edgecv {command}", *lines, f"[{code}]", ""])


def answers(folder: Path) -> Iterator[str]:
    """One command after another, in that folder."""
    fill(folder)
    with contextlib.chdir(folder):
        yield from map(answer, COMMANDS)


def test_what_people_read_is_what_was_agreed() -> None:
    for library in ("torch", "PIL", "onnxruntime", "rich", "pydantic"):
        pytest.importorskip(library)
    done = run("--print")  # its own process, for commands import what lies in the folder
    assert done.returncode == 0, done.stderr
    found = done.stdout
    difference = difflib.unified_diff(
        KEPT.read_text().splitlines(), found.splitlines(), "agreed", "now", lineterm="", n=1
    )
    assert "\n".join(difference) == ""


def test_no_answer_is_a_riddle() -> None:
    """Each is an error with a reason, and none shows an inner name or a trace."""
    for block in KEPT.read_text().split("$ edgecv ")[1:]:
        command, *lines, code = block.strip().splitlines()
        assert code in ("[0]", "[1]", "[2]", "[3]"), command
        text = "\n".join(lines)
        if code != "[0]":
            assert lines[-1].startswith("error: "), command
        for inner in ("Traceback", "data:train", "data:test", "@cpu", "measure:", "(a bug",
                      "NoneType", "object at 0x"):  # fmt: skip
            assert inner not in text, command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This file as a program."""
    return subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=240,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        text = "\n".join(answers(Path(name)))
    if "--print" in sys.argv:
        print(text, end="")
    else:
        KEPT.write_text(text)
