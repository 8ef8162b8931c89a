"""A search under a limit on what a task loses: images held back choose, labelled ones judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
from edgecv import target
from edgecv.commands.export_output import metric_line
from edgecv.context import Context
from edgecv.data.annotations import Boxes, PictureBoxes
from edgecv.data.images import Images
from edgecv.graph import Graph
from edgecv.measuring.run import Measuring
from edgecv.methods.quantize.task_search import EVEN
from edgecv.stages.quantize import Quantize
from tests.methods.quantize import test_task as task

COUNT = 24


def labelled(images: Images) -> Images:
    """With a box around every cell that is bright."""
    cells = images.pixels.reshape(COUNT, 4, task.CELL, 4, task.CELL, 3).mean((2, 4))
    each = []
    for picture in cells:
        y, x = np.nonzero(picture.max(-1) > 60)
        boxes = np.stack([x, y, x + 1, y + 1], 1) * np.float32(task.CELL)
        none, area = np.zeros(len(x), bool), np.full(len(x), task.CELL**2, np.float32)
        each.append(PictureBoxes(boxes, picture[y, x].argmax(-1), none, area))
    truth = Boxes.of(each, np.full((COUNT, 2), task.SIDE))
    return replace(images, truth=truth, classes=("red", "green", "blue"))


def searched(outlier: float, room: Path, **knobs: object) -> Graph:
    source = task.exported(outlier, room / "float")
    sets = {"train": task.pictures(COUNT), "test": labelled(task.pictures(COUNT, seed=1))}
    for name, images in sets.items():
        images.save(room / name)
    here: Context = replace(
        task.context(room / "out"), images=sets.get, folders={k: room / k for k in sets},
        target=target.load("cpu"), doing=Measuring(),
    )  # fmt: skip
    Quantize(name="small", samples=16, **knobs).run(source, here)  # type: ignore[arg-type]
    return Graph.load(here.out)


def test_the_most_faithful_is_judged_first_and_the_drop_has_an_interval(tmp_path: Path) -> None:
    graph = searched(1.0, tmp_path, accuracy_drop=3.0)
    search = graph.facts["search"]
    tried, chosen = search["tried"], search["tried"][search["chosen"]]
    ways = {(t["options"]["calibration"], t["options"]["bias_correction"]) for t in tried}
    assert {("mse", True), ("percentile", True), ("minmax", True)} <= ways
    assert len(ways) == len(tried)
    assert any(not corrected for _, corrected in ways)
    assert search["met"]
    assert graph.facts["fidelity"]["value"] > 0.9
    (judged,) = [t for t in tried if t["figures"]]
    assert judged is chosen
    best = max(t["fidelity"] for t in tried)
    assert chosen is next(t for t in tried if t["fidelity"] >= best - EVEN)
    low, high = chosen["judged"]["bounds"]
    assert low <= chosen["judged"]["drop"] <= high
    assert chosen["judged"]["drop"] == pytest.approx(chosen["figures"]["accuracy_drop"], abs=1e-2)
    assert chosen["judged"]["images"] == COUNT
    doubts = [w for w in graph.facts["warnings"] if "do not tell a drop of 3 points" in w]
    assert len(doubts) == (low < 3.0 < high)
    said = metric_line({"name": "map50_95", "value": 0.5, "samples": COUNT}, chosen["judged"])
    assert f"points ({low:.2f} to {high:.2f}) below fp32 on {COUNT} images" in said


def test_layers_go_float_until_the_task_is_served(tmp_path: Path) -> None:
    knobs = {"calibration": "mse", "bias_correction": True}
    graph = searched(2000.0, tmp_path, accuracy_drop=10.0, **knobs)
    search = graph.facts["search"]
    first, *_, last = (t for t in search["tried"] if t["figures"])
    assert first["options"]["keep_float"] == []
    assert first["figures"]["accuracy_drop"] > 10.0, "int8 alone is not enough"
    assert search["met"]
    assert last is search["tried"][search["chosen"]]
    assert {"a", "b"} <= set(last["options"]["keep_float"])
    assert last["fidelity"] > first["fidelity"] + 0.3
