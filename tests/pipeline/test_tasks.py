"""A detector and a segmentation network, each trained, pruned and quantized by one recipe on made
pictures, and what must be true of the run."""

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
pytest.importorskip("pycocotools")

from edgecv import data, tasks
from edgecv.data.annotations import Boxes, Maps
from edgecv.runtime import open_bundle
from edgecv.runtime.answers import Detection

RECIPE = """
model: {{zoo: {zoo}, width: 8}}
data: {{train: "{source}", test: "{source}", size: 64, resize: {resize}}}
bench: {{rounds: 3, burst_ms: 1, budget_s: 0.2}}
stages:
  - train: {{name: dense, epochs: {epochs}, batch_size: 8, lr: 0.01}}
  - prune: {{name: small, ratio: 0.4, finetune_epochs: 2, batch_size: 8}}
  - quantize: {{name: small-int8}}
targets: [cpu, openvino]
"""
METRICS = {"detection": "map50_95", "segmentation": "miou"}
ASKED = {
    "detection": ("tiny_detector", "shapes-boxes:32", "letterbox", 20),
    "segmentation": ("unet", "shapes-maps:32", "stretch", 4),
}
KEPT = {("dense", "cpu"), ("dense", "openvino"), ("small-int8", "cpu"), ("small-int8", "openvino")}


@dataclass(frozen=True)
class Run:
    """A finished run of the task's recipe."""

    task: str
    folder: Path
    source: str

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.out / "results.json").read_text())

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(r["step"], r["target"]): r for r in self.results["results"]}

    def bundle(self, step: str, target: str) -> Path:
        return self.out / self.rows()[step, target]["bundle"]


@pytest.fixture(scope="module", params=sorted(METRICS))
def run(request, edgecv: Callable, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    zoo, source, resize, epochs = ASKED[request.param]
    recipe = RECIPE.format(zoo=zoo, source=source, resize=resize, epochs=epochs)
    (folder / "tiny.yaml").write_text(recipe)
    done = edgecv("run", "tiny.yaml", "--out", "out", cwd=folder, timeout=900)
    assert done.code == 0, done.err
    return Run(request.param, folder, source)


def test_results_tell_the_tasks_metric(run: Run) -> None:
    assert run.results["schema"] == 2
    rows = run.rows()
    assert rows.keys() == KEPT
    classes = data.parse(run.source).items("test").classes
    for row in rows.values():
        assert row["status"] == "ok", row["reason"]
        metric = row["metric"]
        assert metric["name"] == METRICS[run.task]
        assert 0.0 <= metric["value"] <= 1.0
        assert metric["samples"] == 8
        assert tuple(metric["per_class"]) == classes
        known = [v for v in metric["per_class"].values() if v is not None]
        assert metric["value"] == pytest.approx(np.mean(known), abs=1e-9)
        assert metric["reference"] == rows["dense", row["target"]]["metric"]["value"]


@pytest.mark.parametrize("step", ["dense", "small-int8"])
@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_the_metric_is_what_the_bundle_says_of_the_pictures(
    run: Run, step: str, target: str
) -> None:
    """As a device gives its answers: the picture as it was, through `open_bundle`."""
    items = data.parse(run.source).items("test")
    pictures, truths = zip(*map(items.item, range(items.count)), strict=True)
    bundle = open_bundle(run.bundle(step, target))
    reads = [bundle.read(p, **bundle.task.judging())[0] for p in pictures]
    sizes = [p.shape[:2] for p in pictures]
    truth = Boxes.of(truths, sizes) if run.task == "detection" else Maps.of(truths)
    score = bundle.task.score(reads, truth, items.classes)
    assert score.value == pytest.approx(run.rows()[step, target]["metric"]["value"], abs=1e-9)


@pytest.mark.parametrize("shape", [(192, 192), (90, 150)])
@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_what_a_bundle_answers(run: Run, target: str, shape: tuple[int, int]) -> None:
    height, width = shape
    picture = data.parse(run.source).items("test").item(0)[0][:height, :width]
    bundle = open_bundle(run.bundle("small-int8", target))
    if run.task == "segmentation":
        found = bundle(picture)
        assert (found.dtype, found.shape) == (np.uint8, shape)
        assert found.max() < len(bundle.labels)
        return
    found = bundle(picture, confidence=0.0, max_detections=20)
    assert 0 < len(found) <= 20
    assert all(isinstance(f, Detection) for f in found)
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    for f in found:
        assert f.label == bundle.labels[f.index]
        assert 0 <= f.box[0] <= f.box[2] <= width
        assert 0 <= f.box[1] <= f.box[3] <= height
    assert bundle(picture, confidence=1.0) == []


def test_a_second_run_makes_nothing(run: Run, edgecv: Callable) -> None:
    before = run.rows()
    done = edgecv("run", "tiny.yaml", "--out", "out", cwd=run.folder)
    assert done.code == 0, done.err
    assert "0 steps made" in done.out
    assert {n["action"] for n in run.results["nodes"]} == {"reused"}
    assert run.rows() == before


def test_the_report_is_written_and_calls_the_metric_by_its_name(run: Run) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("vl_convert")
    page = run.out / "report.html"
    assert page.stat().st_size < 5e6
    text = page.read_text()
    assert tasks.called(METRICS[run.task]) in text
    assert "top-1" not in text
    for model in run.results["models"]:
        assert all(f"{100 * point[METRICS[run.task]]:.2f}" in text for point in model["curve"])


def test_the_gate_judges_two_of_its_bundles(run: Run, edgecv: Callable) -> None:
    steps = ("dense", "small-int8")
    others = ("slowdown", "size-growth", "memory-growth")
    done = edgecv("gate", *(run.bundle(step, "cpu") for step in steps), "--json",
                  *(word for name in others for word in (f"--max-{name}", "none")))  # fmt: skip
    said = json.loads(done.out)
    assert done.code == {"pass": 0, "regression": 1, "inconclusive": 4}[said["verdict"]]
    ((check,),) = (pair["checks"] for pair in said["pairs"])
    assert (check["name"], check["unit"]) == ("accuracy", tasks.called(METRICS[run.task]))
    values = [run.rows()[step, "cpu"]["metric"]["value"] for step in steps]
    assert [check["baseline"], check["candidate"]] == values
    assert check["change"] == pytest.approx(values[1] - values[0], abs=1e-9)
    assert check["bounds"][0] <= check["bounds"][1]
    assert check["verdict"] == "pass" or -check["change"] > check["limit"] == 0.005
