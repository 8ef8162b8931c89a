"""Two bundles compared on real engines: networks whose answers are worked out by hand."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.commands.report import without_pictures
from edgecv.data.annotations import Boxes, Maps, PictureBoxes
from edgecv.data.images import Images
from edgecv.errors import DataError
from edgecv.report import seen
from edgecv.report.found import Change, said
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.placement import place
from tests.predicting.bundles import BOXES, SIZE, classifier, detector, segmenter

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

LABELS = ("moth", "lamp")


def levels(*grey: int) -> np.ndarray:
    return np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in grey])


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A detector, and one whose "lamp" has a quarter of the score."""
    folder = tmp_path_factory.mktemp("detectors")
    return [
        detector(folder / "float.edgecv"),
        detector(folder / "small.edgecv", share=(1.0, 0.25)),
    ]


def boxed(pixels: np.ndarray) -> Images:
    """Pictures of 128 x 128 that lie in the input at half their size; the lamp is there."""
    lamp = np.array([BOXES[1]], np.float32) * 2
    one = PictureBoxes(lamp, np.array([1]), np.zeros(1, bool), np.array([4096.0], np.float32))
    truth = Boxes.of([one] * len(pixels), np.full((len(pixels), 2), 2 * SIZE))
    labels = np.zeros(len(pixels), np.int64)
    return Images(pixels, labels, LABELS, truth=truth)


def test_what_a_detector_loses_is_counted_and_drawn(detectors: list[Path]) -> None:
    made = seen.seen(detectors, boxed(levels(204, 102, 230)))  # lamp: 0.40, 0.20, 0.45
    assert made["counts"]["lost"] == made["counts"]["lost_right"] == 2
    assert made["counts"]["gained"] == made["counts"]["moved"] == 0
    assert [image["index"] for image in made["images"]] == [2, 0]
    first = made["images"][0]
    assert first["visible"] == [0, 0, SIZE, SIZE]
    (change,) = (Change(**c) for c in first["changes"])
    assert said(change, LABELS) == "lost: lamp 0.45, which was right"
    assert change.box == pytest.approx(BOXES[1], abs=0.1)


def test_equal_detectors_have_nothing_to_show(detectors: list[Path]) -> None:
    made = seen.seen([detectors[0]] * 2, boxed(levels(204, 102)))
    assert made["images"] == []
    assert set(made["counts"].values()) == {0}


def striped() -> Images:
    """Two pictures in which blue is a little less than green, in a quarter and three quarters."""
    pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    pixels[..., 1], pixels[..., 2] = 120, 10
    pixels[0, :16, :, 2], pixels[1, :48, :, 2] = 100, 100  # blue only with half as much again
    truth = Maps.of([np.ones((SIZE, SIZE), np.uint8)] * 2)
    return Images(pixels, np.zeros(2, np.int64), ("red", "green", "blue"), truth=truth)


def test_maps_that_differ_are_shown_the_worst_first(tmp_path: Path) -> None:
    bundles = [
        segmenter(tmp_path / "float.edgecv"),
        segmenter(tmp_path / "small.edgecv", gain=(1.0, 1.0, 1.5)),
    ]
    made = seen.seen(bundles, striped())
    assert [(i["index"], i["share"]) for i in made["images"]] == [(1, 0.75), (0, 0.25)]
    assert made["counts"]["pixels"] == 0.5
    assert made["images"][0]["classes"] == [1, 2]


def test_figures_come_from_what_the_bundles_hold(detectors: list[Path]) -> None:
    contents = read_bundle(detectors[0])
    assert seen.figures(contents, contents) == {"classes": [], "curves": {}}
    parts = {
        "truth_index": np.array([0]), "truth_count": np.array([2]), "index": np.array([0, 0]),
        "matched": np.array([1023, 1]), "ignored": np.array([0, 0]),
    }  # fmt: skip
    worse = {**parts, "matched": np.array([1023, 0])}
    before, after = (
        replace(contents, parts=p, manifest={**contents.manifest, "metric": {"per_class": c}})
        for p, c in ((parts, {"moth": 0.9}), (worse, {"moth": 0.5}))
    )
    made = seen.figures(before, after)
    assert made["classes"][0]["change"] == pytest.approx(-0.4)
    assert set(made["curves"]["before"]) == {1.0}
    assert np.mean(made["curves"]["after"]) == pytest.approx(51 / 101)


def test_a_classifier_is_not_for_this(tmp_path: Path) -> None:
    path = classifier(tmp_path / "animals.edgecv")
    images = boxed(levels(204))
    with pytest.raises(DataError, match="no pictures of what it finds"):
        seen.seen([path, path], images)


@pytest.mark.parametrize("way", ["letterbox", "crop", "stretch"])
def test_what_is_visible_of_a_picture(way: str) -> None:
    lies = place(way, (100, 200), (64, 64), 1.0, "centre")
    wanted = {"letterbox": [16, 0, 48, 64], "crop": [0, 0, 64, 64], "stretch": [0, 0, 64, 64]}
    assert seen.visible((64, 64), lies) == wanted[way]


# in the page


def run_folder(folder: Path, bundles: list[Path], images: Images) -> Path:
    """A run's folder with a float and a compressed bundle of one target and their test images."""
    done = folder / "store" / "done"
    digests = dict(
        zip(("data:test", "dense", "small"), ("0" * 32, "1" * 32, "2" * 32), strict=True)
    )
    images.save(done / digests["data:test"])
    nodes = [{"id": "data:test", "kind": "data", "digest": digests["data:test"], "inputs": {}}]
    rows = []
    for step, path in zip(("dense", "small"), bundles, strict=True):
        place = done / digests[step]
        place.mkdir()
        shutil.copyfile(path, place / "net.edgecv")
        (place / "facts.json").write_text(json.dumps({"bundle": "net.edgecv"}))
        nodes.append({"id": f"bundle:{step}@cpu", "kind": "bundle", "digest": digests[step],
                      "step": step, "target": "cpu", "inputs": {"test": "data:test"}})  # fmt: skip
        rows.append({"step": step, "target": "cpu", "engine": "onnxruntime", "precision": "fp32",
                     "status": "not measured", "reference": "dense",
                     "metric": {"name": "map50_95", "value": 0.5, "samples": 3}})  # fmt: skip
    data = {"schema": 1, "results": rows, "nodes": nodes, "recipe": {"name": "street"}}
    (folder / "results.json").write_text(json.dumps(data))
    return folder


def test_the_page_shows_what_a_detector_loses(detectors: list[Path], tmp_path: Path) -> None:
    for library in ("jinja2", "vl_convert"):
        pytest.importorskip(library)
    from edgecv import report
    from edgecv.report import summary

    images = boxed(levels(204, 102, 230))
    images = replace(images, classes=("moth", "<b>lamp"))
    run = run_folder(tmp_path, detectors, images)
    data = report.collect(run)
    (one,) = data["seen"]
    assert (one["step"], one["reference"], one["counts"]["lost"]) == ("small", "dense", 2)
    assert json.loads(json.dumps(data)) == data  # plain, as --json prints it
    assert data["points"] == "mAP"
    said = "\n".join(summary.lines(data))
    assert "small on cpu: 2 lost (2 were right), 0 gained (0 right), 0 moved" in said
    page = report.write(run, data=data).read_text()
    assert "mAP, %" in page
    assert "top-1" not in page
    assert "What changed" not in page
    assert "What is found otherwise" in page
    assert "2 lost (2 were right), 0 gained (0 right)" in page
    assert "lost: &lt;b&gt;lamp 0.45, which was right" in page
    assert "<b>lamp" not in page
    assert page.count("data:image/jpeg") == 2


def test_the_page_shows_maps_beside_one_another(tmp_path: Path) -> None:
    for library in ("jinja2", "vl_convert"):
        pytest.importorskip(library)
    from edgecv import report

    (tmp_path / "made").mkdir()
    bundles = [
        segmenter(tmp_path / "made" / "float.edgecv"),
        segmenter(tmp_path / "made" / "small.edgecv", gain=(1.0, 1.0, 1.5)),
    ]
    (tmp_path / "run").mkdir()
    run = run_folder(tmp_path / "run", bundles, striped())
    data = report.collect(run)
    page = report.write(run, data=data).read_text()
    assert "50.0 % of the pixels are of another class" in page
    plain = json.dumps(without_pictures(data))  # what --json prints
    assert '"share": 0.75' in plain
    assert "data:image" not in plain
    for name in ("the map of truth", "the map of float", "the map of small", "where they differ"):
        assert page.count(f"Test image 1, {name}") == 1
    assert page.count("data:image/jpeg") == 2  # each picture once
    places = set(re.findall(r'<use href="#(scene-[^"]+)"', page))
    assert places == set(re.findall(r'<image id="(scene-[^"]+)"', page)) != set()
