"""A new task is one file: every command walks with a toy one (`tests/toy_task/`), which no line of
edgecv knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")
image = pytest.importorskip("PIL.Image")

TOY = Path(__file__).parent / "toy_task"
SIDE, MOST = 32, 3
NETWORK = """
from torch import nn

def make(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1),
    )
"""
RECIPE = """
model: {module: mynet:make, width: 8}
task: counting
data: {train: coco:train.json, test: coco:test.json, size: 32}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 20, batch_size: 16, lr: 0.02}
  - prune: {name: pruned, ratio: 0.5, align: 4, finetune_epochs: 2}
  - quantize: {name: counted-int8, accuracy_drop: 50}
targets: [cpu]
"""


def write_squares(folder: Path, split: str, count: int, seed: int) -> None:
    """Dark pictures with 0 to 3 bright squares, and COCO's JSON of them."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(exist_ok=True)
    pictures, boxes = [], []
    for i in range(count):
        pixels = rng.integers(0, 30, (SIDE, SIDE, 3), dtype=np.uint8)
        for place in range(i % (MOST + 1)):
            x, y = 2 + 15 * (place % 2), 2 + 15 * (place // 2)
            pixels[y : y + 10, x : x + 10] = 220
            boxes.append({"id": len(boxes) + 1, "image_id": i, "category_id": 1, "iscrowd": 0,
                          "bbox": [x, y, 10, 10], "area": 100})  # fmt: skip
        name = f"{split}-{i}.png"
        image.fromarray(pixels).save(folder / "images" / name)
        pictures.append({"id": i, "file_name": name, "width": SIDE, "height": SIDE})
    kinds = [{"id": 1, "name": "square"}]
    told = {"images": pictures, "annotations": boxes, "categories": kinds}
    (folder / f"{split}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: images, a network, a recipe; path/ has the task."""
    folder = tmp_path_factory.mktemp("toy-task")
    shutil.copytree(TOY / "edgecv", folder / "path" / "edgecv")
    write_squares(folder, "train", 64, seed=1)
    write_squares(folder, "test", 24, seed=2)
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def toy(edgecv: Callable, room: Path) -> Callable:
    """toy("bench", ...): the command with the task on PYTHONPATH, which must end with one of
    `codes`; its standard output."""

    def call(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        done = edgecv(*arguments, cwd=room, path=room / "path")
        assert done.code in codes, (arguments, done.out, done.err)
        return str(done.out)

    return call


@pytest.fixture(scope="module")
def ran(toy: Callable, room: Path) -> Path:
    """The recipe, run: the folder that it wrote."""
    toy("run", "tiny.yaml", "--out", "out")
    return room / "out"


@pytest.fixture(scope="module")
def rows(ran: Path) -> dict[str, dict]:
    found = json.loads((ran / "results.json").read_text())["results"]
    assert {r["status"] for r in found} == {"ok"}
    return {r["step"]: r for r in found}


def test_a_run_trains_prunes_and_quantizes_by_the_tasks_metric(rows: dict[str, dict]) -> None:
    shipped = rows["counted-int8"]["metric"]
    assert (shipped["name"], shipped["samples"]) == ("counted", 24)
    assert shipped["reference"] > 0.5  # more than a quarter is what guessing gives
    assert shipped["value"] > 0.5


def test_every_command_reads_what_a_run_made(
    toy: Callable, rows: dict[str, dict], ran: Path
) -> None:
    bundle = ran / rows["counted-int8"]["bundle"]
    other = next(ran / r["bundle"] for step, r in rows.items() if step != "counted-int8")
    assert json.loads(toy("verify", bundle, "--json"))
    told = json.loads(toy("inspect", bundle, "--json"))
    assert (told["task"], told["metric"]["name"]) == ("counting", "counted")
    toy("bench", other, bundle, "--budget", "0.5", "--json")
    judged = toy("gate", bundle, bundle, "--budget", "0.5", "--json", codes=(0, 4))
    assert "counts" in judged  # 4: a busy machine cannot tell in half a second
    assert "top-1" not in toy("parity", bundle)
    assert json.loads(toy("why", bundle, "--json"))
    assert "counted" in toy("report", ran, "--json") + (ran / "report.html").read_text()


def test_predictions_are_the_tasks_answers(
    toy: Callable, rows: dict[str, dict], ran: Path, room: Path
) -> None:
    bundle = ran / rows["counted-int8"]["bundle"]
    said = toy("predict", bundle, "images/test-3.png", "--json", "--save", "drawn")
    (line,) = said.splitlines()
    assert "count" in line
    assert round(json.loads(line)["predictions"]["count"]) == MOST
    assert [*(room / "drawn").iterdir()]


def test_export_judges_by_it_and_refuses_what_it_cannot_know(toy: Callable, room: Path) -> None:
    shared = ("export", "mynet:make", "--input-size", "32", "--target", "cpu", "--task", "counting",
              "--calibration", "images", "--accuracy-drop", "100", "--out", "exported")  # fmt: skip
    toy(*shared, "--evaluate", "coco:test.json")
    assert [*(room / "exported").glob("*.edgecv")]
    with pytest.raises(AssertionError, match="what counting loses of its counts is not known"):
        toy(*shared)
