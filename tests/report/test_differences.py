"""Intervals and p of a metric whose parts the bundles hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv.data.annotations import Maps
from edgecv.report import summary
from edgecv.report.gather import Data, gather
from edgecv.runtime.archive import read_bundle, write_bundle
from edgecv.tasks.segmentation import SegmentationTask, Segmented
from tests.predicting.bundles import segmenter
from tests.report.test_seen import run_folder, striped

IMAGES, SIDE = 40, 16
LABELS = ("red", "green", "blue")


def judged(path: Path, wrong: float, truth: Maps) -> tuple[Path, float]:
    """A bundle of parts: `wrong` of the pixels of each image at random called the next class."""
    rng = np.random.default_rng(0)  # the same numbers: what fails at 0.1 fails at 0.2
    task, reads = SegmentationTask((64, 64)), []
    for i in range(len(truth)):
        turned = rng.random((SIDE, SIDE)) < wrong * rng.uniform(0.5, 1.5)
        reads.append(Segmented(((truth[i] + turned) % 3).astype(np.uint8)))
    score = task.score(reads, truth, LABELS)
    plain = read_bundle(segmenter(path))
    metric = {"name": task.metric, "value": score.value, "samples": len(truth)}
    goldens = plain.golden_inputs, plain.golden_outputs
    write_bundle(path, {**plain.manifest, "metric": metric}, plain.files, *goldens,
                 parts=score.parts)  # fmt: skip
    return path, score.value


def a_run(folder: Path, wrong: tuple[float, float], images: tuple[int, int]) -> Path:
    rng = np.random.default_rng(1)
    whole = rng.integers(0, 3, (IMAGES, SIDE, SIDE)).astype(np.uint8)
    made = [
        judged(folder / f"{name}.edgecv", share, Maps.of(list(whole[:count])))
        for name, share, count in zip(("a", "b"), wrong, images, strict=True)
    ]
    (folder / "run").mkdir()
    run = run_folder(folder / "run", [path for path, _ in made], striped())
    data = json.loads((run / "results.json").read_text())
    for row, (_, value) in zip(data["results"], made, strict=True):
        row["metric"] = {"name": "miou", "value": value, "samples": IMAGES,
                         "reference": made[0][1], "more": {"pixel_accuracy": 0.987}}  # fmt: skip
    (run / "results.json").write_text(json.dumps(data))
    return run


def rows(data: Data) -> list[Data]:
    return [row for target in data["targets"] for row in target["rows"]]


def test_a_drop_that_is_no_chance(tmp_path: Path) -> None:
    data = gather(a_run(tmp_path, (0.1, 0.15), (IMAGES, IMAGES)))
    dense, small = rows(data)
    for row in (dense, small):
        low, high = row["value_interval"]
        assert 0 < low < row["value"] < high < 1
        assert high - low < 0.1
    low, high = small["points_interval"]
    assert low < small["points"] < high < 0
    assert small["p"] < 0.01
    assert dense["points_interval"] is dense["p"] is None
    assert data["task"] == "segmentation"
    said = "\n".join(summary.lines(data))
    assert "against float, paired" in said
    assert "pixel accuracy" in said
    assert "98.70" in said
    reasons = {line["part"]: line["reason"] for line in data["missing"]}
    assert "one class of an image" in reasons["where networks look"]


def test_equals_are_told_apart_by_nothing(tmp_path: Path) -> None:
    small = rows(gather(a_run(tmp_path, (0.1, 0.1), (IMAGES, IMAGES))))[1]
    assert small["points_interval"] == [0.0, 0.0]
    assert small["p"] == 1.0


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    data = gather(a_run(tmp_path, (0.1, 0.1), (IMAGES, IMAGES - 1)))
    small = rows(data)[1]
    assert small["value_interval"]
    assert small["points_interval"] is None
    reason = next(m["reason"] for m in data["missing"] if m["part"] == "intervals")
    assert reason == "small on cpu: measured on different test images"


def test_the_page_names_the_metric_and_shows_its_other_figures(tmp_path: Path) -> None:
    for library in ("jinja2", "vl_convert", "PIL"):
        pytest.importorskip(library)
    from edgecv.report import page

    run = a_run(tmp_path, (0.1, 0.15), (IMAGES, IMAGES))
    data = gather(run)
    small = rows(data)[1]
    text = page.html(run, data)
    assert "pixel accuracy" in text
    assert "Pixel accuracy: the share of the pixels that are right." in text
    assert "95% (bootstrap) for mIoU on 40 images" not in text, "nothing was timed: no chart"
    assert text.count(f"[{100 * small['value_interval'][0]:.1f}, ") >= 1
    assert "Wilson" not in text
    assert "top-1" not in text
    assert "equal best classes" not in text


def test_results_of_hand_without_bundles(tmp_path: Path) -> None:
    run = a_run(tmp_path, (0.1, 0.15), (IMAGES, IMAGES))
    for path in run.glob("store/done/*/net.edgecv"):
        path.unlink()
    small = rows(gather(run))[1]
    assert (small["value_interval"], small["p"]) == (None, None)
    assert small["more"] == {"pixel_accuracy": 0.987}
