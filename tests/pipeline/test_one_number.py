"""Yes or no, and numbers: each trained, pruned and quantized by one recipe on made pictures, then
exported, measured, compared and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from PIL import Image

from edgecv import tasks
from edgecv.runtime import open_bundle

SIDE = 32
RECIPE = """
model: {{zoo: resnet8, width: 8}}
{task}
data: {{train: "{train}", test: "{test}", size: 32, resize: none}}
bench: {{rounds: 3, burst_ms: 1, budget_s: 0.2}}
stages:
  - train: {{name: dense, epochs: {epochs}, batch_size: 16, lr: 0.01}}
  - prune: {{name: small, ratio: 0.4, finetune_epochs: 3, batch_size: 16}}
  - qat: {{name: tuned, epochs: 2, batch_size: 16}}
  - quantize: {{name: small-int8, accuracy_drop: 30}}
targets: [cpu]
"""
METRICS = {"binary": "accuracy", "regression": "r2"}
COLUMNS = ("level [1/255]", "side")


def picture(rng: np.random.Generator, there: bool) -> tuple[np.ndarray, int, int]:
    """Dark noise, with a bright square or without; its level and its side."""
    pixels = rng.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
    level, side = int(rng.integers(120, 250)), int(rng.integers(8, 25))
    if there:
        y, x = rng.integers(0, SIDE - side, 2)
        pixels[y : y + side, x : x + side] = level
    return pixels, level, side


def write(folder: Path, split: str, count: int, seed: int) -> None:
    """Folders of two classes, and beside them a table of numbers of those with a square."""
    rng = np.random.default_rng(seed)
    rows = [",".join(("image", *COLUMNS))]
    for i in range(count):
        name = f"{split}/{('empty', 'there')[i % 2]}/{i}.png"
        pixels, level, side = picture(rng, i % 2 == 1)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        if i % 2:
            rows.append(f"{name},{level},{side}")
    (folder / f"{split}.csv").write_text("\n".join(rows))


@dataclass(frozen=True)
class Run:
    """A finished run of the task's recipe."""

    task: str
    folder: Path
    test: str

    def rows(self) -> dict[str, dict[str, Any]]:
        found = json.loads((self.folder / "out" / "results.json").read_text())["results"]
        return {row["step"]: row for row in found}

    def bundle(self, step: str) -> Path:
        return self.folder / "out" / self.rows()[step]["bundle"]


@pytest.fixture(scope="module", params=sorted(METRICS))
def run(request, edgecv: Callable, tmp_path_factory: pytest.TempPathFactory) -> Run:
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    write(folder, "train", 96, 1)
    write(folder, "test", 48, 2)
    said = "task: binary"
    sources = ("imagefolder:train", "imagefolder:test")
    if task == "regression":  # a table says it
        said, sources = "", ("table:train.csv", "table:test.csv")
        said = "task: {name: regression, offset: [185, 16], scale: [37, 5]}"
    made = RECIPE.format(task=said, train=sources[0], test=sources[1], epochs=12)
    (folder / "tiny.yaml").write_text(made)
    done = edgecv("run", "tiny.yaml", "--out", "out", cwd=folder, timeout=600)
    assert done.code == 0, done.err
    return Run(task, folder, sources[1])


def test_results_tell_the_tasks_metric(run: Run) -> None:
    rows = run.rows()
    assert rows.keys() == {"dense", "small-int8"}
    for row in rows.values():
        assert row["status"] == "ok", row["reason"]
        assert row["latency_ms"]["p50"] > 0
        assert row["metric"]["name"] == METRICS[run.task]
        assert row["metric"]["value"] > 0.7, row["metric"]
        assert row["metric"]["reference"] == rows["dense"]["metric"]["value"]


def test_a_device_answers_by_names(run: Run) -> None:
    bundle = open_bundle(run.bundle("small-int8"))
    there = np.asarray(Image.open(run.folder / "test" / "there" / "1.png"))
    if run.task == "binary":
        assert [p.label for p in bundle(there)] == ["there", "empty"]
        assert bundle(there)[0].score > 0.5
        assert bundle(there, threshold=1.0)[0].label == "empty"
        return
    level, side = bundle(there)
    assert (level.label, level.unit, side.label, side.unit) == ("level", "1/255", "side", "")
    true = [float(v) for v in (run.folder / "test.csv").read_text().split("\n")[1].split(",")[1:]]
    assert [level.value, side.value] == pytest.approx(true, rel=0.5)


def test_the_metric_is_what_the_bundle_says_of_the_pictures(run: Run) -> None:
    from edgecv import data

    bundle = open_bundle(run.bundle("small-int8"))
    items = data.parse(run.test.replace(":", f":{run.folder}/")).items("test")
    pictures, truths = zip(*map(items.item, range(items.count)), strict=True)
    reads = [bundle.read(p, **bundle.task.judging())[0] for p in pictures]
    truth: Any = np.array(truths)
    if run.task == "regression":
        from edgecv.data.annotations import Numbers

        truth = Numbers.of(truths, [p.shape[:2] for p in pictures])
    score = bundle.task.score(reads, truth, items.classes)
    assert score.value == pytest.approx(run.rows()["small-int8"]["metric"]["value"], abs=1e-9)


def test_commands_tell_it_by_its_name(run: Run, edgecv: Callable) -> None:
    called = tasks.called(METRICS[run.task])
    steps = [run.bundle(step) for step in ("dense", "small-int8")]
    done = edgecv("gate", *steps, "--json", "--max-slowdown", "none", "--max-memory-growth", "none",
                  "--max-size-growth", "none")  # fmt: skip
    ((check,),) = (pair["checks"] for pair in json.loads(done.out)["pairs"])
    assert (check["name"], check["unit"]) == ("accuracy", called)
    values = [run.rows()[step]["metric"]["value"] for step in ("dense", "small-int8")]
    assert [check["baseline"], check["candidate"]] == values
    for command in (("verify",), ("inspect",), ("parity", "--images", run.folder / "test")):
        done = edgecv(command[0], steps[0], *command[1:])
        assert done.code == 0, done.err
        assert "top-1" not in done.out
    done = edgecv("bench", *steps, "--budget", "0.5", "--json")
    assert done.code == 0, done.err


def test_the_report_tells_its_figures(run: Run) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("vl_convert")
    page = (run.folder / "out" / "report.html").read_text()
    assert "top-1" not in page
    row = run.rows()["small-int8"]
    assert f"{100 * row['metric']['value']:.2f}" in page
    for name, value in row["metric"]["more"].items():
        shown = f"{value:.4g}" if name.startswith(("mae", "rmse")) else f"{100 * value:.2f}"
        assert f">{shown}<" in page, name


def test_predict_says_and_draws_it(run: Run, edgecv: Callable) -> None:
    picture = run.folder / "test" / "there" / "1.png"
    shared = ("predict", run.bundle("small-int8"), picture, "--save", run.folder / "drawn")
    done = edgecv(*shared, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["task"] == run.task
    names = [row["label"] for row in said["predictions"]]
    assert names == (["there", "empty"] if run.task == "binary" else ["level", "side"])
    drawn = np.asarray(Image.open(run.folder / "drawn" / "1.png").convert("RGB"))
    assert drawn.shape[0] > SIDE  # letters need room
    plain = edgecv(*shared)
    assert f"1.png: {names[0]} " in plain.out
    asked = edgecv("predict", run.bundle("dense"), picture, "--threshold", "1", "--json")
    if run.task == "binary":
        assert json.loads(asked.out)["predictions"][0]["label"] == "empty"
    else:
        assert asked.code == 2
        assert "--threshold: means nothing to a bundle of task regression" in asked.err


def test_a_file_is_judged_by_the_same(run: Run, edgecv: Callable) -> None:
    """The network as an .onnx file, with labels of its own, through `export`."""
    import torch

    from edgecv.models.model import Model

    folder = run.folder / "file"
    folder.mkdir(exist_ok=True)
    stored = (p.parent for p in (run.folder / "out" / "store").rglob("model.json"))
    trained = next(p for p in stored if [*Model.read(p).facts][-1:] == ["dense"])
    _, module = Model.load(trained)
    torch.onnx.export(module.eval(), torch.zeros(1, 3, SIDE, SIDE), str(folder / "net.onnx"),
                      dynamo=False, input_names=["image"], output_names=["z"])  # fmt: skip
    names = ("empty", "there") if run.task == "binary" else COLUMNS
    (folder / "names.txt").write_text("\n".join(names))
    shared = ("export", folder / "net.onnx", "--target", "cpu", "--evaluate", run.test, "--json",
              "--labels", folder / "names.txt", "--resize", "none", "--out", folder / "out",
              "--mean", "127.5", "--std", "127.5")  # fmt: skip
    said = ("--task", "binary") if run.task == "binary" else (
        "--decode", "offset=[185, 16]", "--decode", "scale=[37, 5]")  # fmt: skip
    done = edgecv(*shared, *said, cwd=run.folder)
    assert done.code == 0, done.err
    metric = json.loads(done.out)["metric"]
    assert metric["name"] == METRICS[run.task]
    assert metric["samples"] == (48 if run.task == "binary" else 24)
    assert metric["value"] == pytest.approx(run.rows()["dense"]["metric"]["value"], abs=0.02)
