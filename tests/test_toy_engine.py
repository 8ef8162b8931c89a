"""A new engine is one folder, a new stage one file, a new device one profile: every command walks
with a toy one of each (`tests/toy/`), which no line of edgecv knows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import NETWORK, environment, write_images

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

TOY = Path(__file__).parent / "toy"
RECIPE = """
model: {module: mynet:make, width: 8}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 16}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 2, batch_size: 16}
  - coarsen: {name: coarse, bits: 7}
  - quantize: {name: coarse-int8}
targets: [toy]
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: images, a network, a recipe, a profile; path/ has the engine and stage."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(TOY / "targets", folder / "targets")
    shutil.copytree(TOY / "edgecv", folder / "path" / "edgecv")
    write_images(folder / "images" / "train", 16, seed=1)
    write_images(folder / "images" / "test", 4, seed=2)
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def toy(edgecv: Callable, room: Path) -> Callable:
    """toy("bench", ...): the command with the toys on PYTHONPATH, which must end with one of
    `codes`; its standard output."""

    def call(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        done = edgecv(*arguments, cwd=room, path=room / "path")
        assert done.code in codes, (arguments, done.err)
        return str(done.out)

    return call


@pytest.fixture(scope="module")
def ran(toy: Callable, room: Path) -> Path:
    """The recipe, run: the folder that it wrote."""
    toy("run", "tiny.yaml", "--out", "out")
    return room / "out"


@pytest.fixture(scope="module")
def bundles(ran: Path) -> dict[str, Path]:
    rows = json.loads((ran / "results.json").read_text())["results"]
    assert {r["status"] for r in rows} == {"ok"}
    assert {r["engine"] for r in rows} == {"toy"}
    return {r["step"]: ran / r["bundle"] for r in rows}


def test_what_there_is_is_told(toy: Callable) -> None:
    (profile,) = (t for t in json.loads(toy("targets", "--json")) if t["name"] == "toy")
    assert profile["backend"] == "toy"
    (engine,) = (e for e in json.loads(toy("doctor", "--json"))["engines"] if e["engine"] == "toy")
    assert engine["available"]
    assert "coarsen" in json.loads(toy("stages", "--json"))
    assert '"coarsen"' in toy("stages", "--schema")


def test_export_makes_a_bundle_of_its_own_files(toy: Callable, room: Path) -> None:
    toy("export", "mynet:make", "--arg", "width=8", "--input-size", "16", "--target", "toy",
        "--out", "exported")  # fmt: skip
    names = {p.name for p in (room / "exported").iterdir()}
    assert {Path(n).suffix for n in names} == {".edgecv", ".toy"}


def test_a_recipe_runs_and_every_command_reads_what_it_made(
    toy: Callable, bundles: dict[str, Path], ran: Path
) -> None:
    assert len(bundles) == 2
    shipped, reference = bundles["coarse-int8"], next(
        b for step, b in bundles.items() if step != "coarse-int8")  # fmt: skip
    assert json.loads(toy("verify", shipped, "--json"))
    told = json.loads(toy("inspect", shipped, "--json"))
    assert (told["engine"], told["executed"]) == ("toy", {"int8": 3})
    toy("bench", reference, shipped, "--budget", "0.5", "--json")
    toy("bench", shipped, "--profile", "--json")
    assert json.loads(toy("parity", shipped, "--json"))["agrees"]
    assert json.loads(toy("why", shipped, "--json"))["engine"] == "toy"
    judged = toy("gate", reference, reference, "--budget", "0.5", "--json", codes=(0, 4))
    assert json.loads(judged)  # 4: a busy machine cannot tell in half a second
    toy("report", ran)
    assert "toy" in (ran / "report.html").read_text().lower()


def test_a_plan_knows_the_code_of_both(toy: Callable, ran: Path, room: Path) -> None:
    """What was made is kept under the code that made it: an engine's and a stage's too."""
    plans = [toy("plan", "tiny.yaml", "--out", ran)]
    for file in ("backends/toy/compile.py", "stages/coarsen.py"):
        with (room / "path" / "edgecv" / file).open("a") as source:
            source.write("\nADDED = 1\n")
        plans.append(toy("plan", "tiny.yaml", "--out", ran))
    assert len(set(plans)) == 3


def test_the_working_folder_adds_nothing(room: Path) -> None:
    """Code that lies there by chance is not run; without the toys the target is refused."""
    shutil.copytree(TOY / "edgecv", room / "edgecv", dirs_exist_ok=True)
    command = [sys.executable, "-m", "edgecv", "export", "mynet:make", "--target", "toy",
               "--out", "never"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=room,
                          env=environment())  # fmt: skip
    shutil.rmtree(room / "edgecv")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'toy' is no engine; there are c, edgetpu, onnxruntime" in line
    assert not (room / "never").exists()


def test_a_device_gets_the_engine_too(room: Path) -> None:
    code = "from edgecv.device import kit; print(*kit.members('edgecv.benchmark.measure'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=environment(room / "path"), cwd=room)  # fmt: skip
    assert {"edgecv/backends/toy/run.py", "edgecv/backends/toy/__init__.py"} <= {
        *done.stdout.split()
    }


def test_an_engine_brings_a_format_of_graph_of_its_own(toy: Callable, room: Path) -> None:
    """From PyTorch and from an .onnx file; int8 of it is refused, which nobody brought."""
    size = ("--input-size", "16")
    toy("export", "mynet:make", "--arg", "width=8", *size, "--target", "cpu", "--out", "onnx")
    (file,) = (room / "onnx").glob("*.onnx")
    for network in (("mynet:make", "--arg", "width=8", *size), (file,)):
        out = room / f"own-{Path(network[0]).suffix[1:]}"
        toy("export", *network, "--target", "toy-own", "--out", out)
        assert {p.suffix for p in out.iterdir()} == {".edgecv", ".toy"}
    toy("verify", *out.glob("*.edgecv"))
    with pytest.raises(AssertionError, match="toy graphs: nothing here quantizes them"):
        toy("export", "mynet:make", *size, "--target", "toy-own", "--precision", "int8",
            "--calibration", "images/train", "--out", "never")  # fmt: skip
    assert not (room / "never").exists()


@pytest.mark.parametrize(
    ("graph", "said"),
    [("tflite", "Toy reads no 'tflite', but onnx or toy"), ("5", "must be text")],
)
def test_a_profile_asks_for_what_its_engine_reads(
    edgecv: Callable, room: Path, graph: str, said: str
) -> None:
    (room / "targets" / "wrong.yaml").write_text(f"backend: toy\ngraph: {graph}\n")
    done = edgecv("export", "mynet:make", "--target", "wrong", "--out", "never", cwd=room,
                  path=room / "path")  # fmt: skip
    (room / "targets" / "wrong.yaml").unlink()
    assert done.code == 2
    assert said in done.err
    assert "graph" in done.err
