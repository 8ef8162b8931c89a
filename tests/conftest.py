"""What the tests of `cli` and `pipeline` share: the command as a real process, and one project.

The project is a user's own: JPEGs of different sizes in folders, a network in a file outside the
package, a recipe for five targets. It is run once per session; tests that change it copy it.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COLOURS = {"ant": (170, 110, 110), "bee": (110, 170, 110), "cat": (110, 110, 170)}

NETWORK = """
from torch import nn


def make(width=16, classes=3):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )
"""

RECIPE = """
model: {module: mynet:make, width: 32}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 24}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 2, batch_size: 16}
  - prune: {name: small, ratio: 0.5, finetune_epochs: 1}
  - quantize: {name: small-int8}
targets: [cpu, openvino, tflite, edgetpu, tensorrt]
"""


@dataclass(frozen=True)
class Done:
    """A finished command. cpu_s: its own processor time, user and system."""

    code: int
    out: str
    err: str
    cpu_s: float


def environment(path: Path | None = None) -> dict[str, str]:
    """The environment of a command; `path` goes before everything on its PYTHONPATH."""
    paths = [str(p) for p in (path, ROOT) if p]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}


def run_edgecv(
    *arguments: str | Path, cwd: Path | None = None, path: Path | None = None, timeout: float = 240
) -> Done:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(
        [sys.executable, "-m", "edgecv", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(path),
        timeout=timeout,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done(process.returncode, process.stdout, process.stderr, spent)


@pytest.fixture(scope="session")
def edgecv() -> Callable[..., Done]:
    """edgecv("plan", recipe, cwd=..., path=...) -> Done: `python -m edgecv` in a process."""
    return run_edgecv


@pytest.fixture(scope="session")
def started() -> Callable[..., subprocess.Popen[bytes]]:
    """started("run", recipe, cwd=...) -> Popen in a process group of its own, output discarded."""

    def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "edgecv", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=environment(),
            start_new_session=True,
        )

    return start


@pytest.fixture
def site(tmp_path: Path) -> Callable[[str], Path]:
    """site(code) -> a folder for PYTHONPATH: every process runs the code when it starts."""

    def make(code: str) -> Path:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        return folder

    return make


def write_images(folder: Path, count: int, seed: int, mislabelled: int = 0) -> None:
    """Coloured noise as JPEGs of different sizes, a sub-folder per class.

    mislabelled: how many of each class are of the next class's colour, so that top-1 is not 1.
    """
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(seed)
    colours = list(COLOURS.values())
    for label, name in enumerate(COLOURS):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colour = colours[(label + (i < mislabelled)) % len(colours)]
            height, width = rng.integers(20, 60, 2)
            noise = rng.normal(0, 40, (height, width, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{i:02}.jpg")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: images/, mynet.py, tiny.yaml. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("project")
    write_images(folder / "images" / "train", 32, seed=1)
    write_images(folder / "images" / "test", 12, seed=2, mislabelled=2)
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@dataclass(frozen=True)
class Finished:
    """The project's one run. out: what --out held; done: the command."""

    folder: Path
    out: Path
    done: Done


@pytest.fixture(scope="session")
def finished(project: Path) -> Finished:
    """The recipe, run once from the beginning to the end."""
    pytest.importorskip("torch")
    out = project / "out"
    done = run_edgecv("run", "tiny.yaml", "--out", out, "--jobs", "1", cwd=project)
    assert done.code == 0, done.err
    return Finished(project, out, done)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run's --out, to change and run again."""
    return Path(shutil.copytree(finished.out, tmp_path / "out"))


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The library of binary kernels, built from its sources; child processes find it."""
    from edgecv.binary import build, library

    cc = build.compiler()
    if cc is None:
        pytest.skip("no C compiler")
    path = build.build(tmp_path_factory.mktemp("kernels") / build.NAME, cc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECV_KERNELS", str(path))
        library.library.cache_clear()
        yield path
    library.library.cache_clear()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout and the wheel that is made of it."""
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("dist")
    words = ["--no-isolation", "--outdir", str(folder), str(ROOT)]  # nothing is fetched
    done = subprocess.run(
        [sys.executable, "-m", "build", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
