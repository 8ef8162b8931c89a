"""What a compressed detector finds otherwise, against cases worked out by hand and pycocotools."""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from edgecv.data.annotations import Boxes, PictureBoxes
from edgecv.report import found as founds
from edgecv.report.found import Change, changes, counted, curve, said, telling
from edgecv.tasks.detection.matching import overlaps

LABELS = ("cat", "dog", "owl")
A, B, C = (10, 10, 50, 50), (100, 100, 180, 160), (200, 20, 240, 90)


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    index: np.ndarray  # type: ignore[assignment]


def found(*rows: tuple[tuple[float, ...], float, int]) -> Found:
    return Found(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int64),
    )


def true(*rows: tuple[tuple[float, ...], int]) -> PictureBoxes:
    boxes = np.array([r[0] for r in rows], np.float32).reshape(-1, 4)
    index = np.array([r[1] for r in rows], np.int64)
    return PictureBoxes(boxes, index, np.zeros(len(rows), bool), np.ones(len(rows), np.float32))


def test_overlap_by_hand() -> None:
    over = overlaps(np.array([A, B]), np.array([(30, 10, 70, 50), (10, 10, 10, 50)]))
    assert over == pytest.approx(np.array([[20 * 40 / (2 * 1600 - 800), 0], [0, 0]]))


def test_what_is_lost_gained_moved_and_renamed() -> None:
    before = found((A, 0.9, 0), (B, 0.8, 1), (C, 0.7, 2))
    moved = (20, 10, 60, 50)  # 30 * 40 / (2 * 1600 - 1200) = 0.6 of A
    after = found((moved, 0.6, 0), (B, 0.5, 2), ((300, 0, 340, 40), 0.4, 1))
    made = changes(before, after, true((A, 0), (B, 1), (C, 2)))
    assert [(c.kind, c.index, c.right) for c in made] == [
        ("lost", 2, True),
        ("gained", 1, False),
        ("renamed", 2, False),
        ("moved", 0, True),
    ]
    assert made[2].was_index == 1
    assert made[3].was == A
    counts = counted([made, []])
    assert (counts["lost"], counts["lost_right"], counts["gained_right"]) == (1, 1, 0)
    assert [said(c, LABELS) for c in made] == [
        "lost: owl 0.70, which was right",
        "gained: dog 0.40, which is wrong",
        "renamed: dog is now owl 0.50, which is wrong",
        "moved: cat 0.60, which is right",
    ]


def test_a_class_of_its_own_is_paired_before_a_nearer_box_of_another() -> None:
    before = found((A, 0.9, 0))
    after = found((A, 0.8, 1), ((12, 10, 52, 50), 0.7, 0))
    assert [(c.kind, c.index) for c in changes(before, after)] == [("gained", 1)]


reads = st.integers(0, 6).flatmap(
    lambda n: st.tuples(
        stn.arrays(np.float32, (n, 2), elements=st.integers(0, 60)),
        stn.arrays(np.float32, (n, 2), elements=st.integers(1, 40)),
        stn.arrays(np.float32, n, elements=st.floats(0.0, 1.0, width=32)),
        stn.arrays(np.int64, n, elements=st.integers(0, 2)),
    )
)


@settings(deadline=None)
@given(one=reads, two=reads)
def test_every_box_is_accounted_for_once(one: tuple, two: tuple) -> None:
    before, after = (Found(np.hstack([r[0], r[0] + r[1]]), r[2], r[3]) for r in (one, two))
    assert changes(before, before) == []
    made = changes(before, after)
    kinds = [c.kind for c in made]
    kept = len(before.boxes) - kinds.count("lost")
    assert kept == len(after.boxes) - kinds.count("gained")
    assert kinds.count("moved") + kinds.count("renamed") <= kept
    back = [c.kind for c in changes(after, before)]
    assert (kinds.count("lost"), kinds.count("gained")) == (
        back.count("gained"), back.count("lost"),
    )  # fmt: skip


def test_the_gravest_images_come_first() -> None:
    lost = Change("lost", A, 0.9, 0, right=True)
    mistake = Change("lost", A, 0.95, 0, right=False)  # a mistake less is no loss
    wrong = Change("gained", B, 0.5, 1, right=False)
    assert telling([[], [mistake], [wrong], [lost], [lost, wrong]], 4) == [4, 3, 2, 1]
    assert telling([[mistake]] * 5, 2) == [0, 1]


def test_classes_by_their_change() -> None:
    rows = founds.by_class(
        {"cat": 0.5, "dog": 0.4, "owl": None, "fox": 0.3},
        {"cat": 0.45, "dog": 0.6, "owl": 0.1, "fox": None},
        most=5,
    )
    assert [(r["label"], round(r["change"], 3)) for r in rows] == [("dog", 0.2), ("cat", -0.05)]


def test_the_curve_has_the_area_that_pycocotools_says() -> None:
    pytest.importorskip("pycocotools")
    from edgecv.tasks.detection import DetectionTask, metric

    rng = np.random.default_rng(3)
    pictures, answers = [], []
    for _ in range(12):
        corner = rng.uniform(0, 200, (5, 2))
        boxes = np.hstack([corner, corner + rng.uniform(20, 90, (5, 2))]).astype(np.float32)
        index = rng.integers(0, 3, 5)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        pictures.append(PictureBoxes(boxes, index, rng.random(5) < 0.1, area))
        near = boxes + rng.normal(0, 6, boxes.shape).astype(np.float32)
        wrong = np.where(rng.random(5) < 0.3, (index + 1) % 3, index)
        answers.append(Found(near, rng.random(5).astype(np.float32), wrong))
    truth = Boxes.of(pictures, np.full((12, 2), 300))
    task = DetectionTask(decoder="end2end", input=(300, 300))
    score = metric.score(answers, truth, LABELS, task)
    assert 0.05 < score.more["ap50"] < 0.95
    assert curve(score.parts).mean() == pytest.approx(score.more["ap50"], abs=1e-9)
    assert curve(score.parts, 5).mean() == pytest.approx(score.more["ap75"], abs=1e-9)
    assert (np.diff(curve(score.parts)) <= 0).all()


def test_charts_hold_their_figures() -> None:
    pytest.importorskip("vl_convert")
    from edgecv.report import plots

    rows = founds.by_class({"cat": 0.5, "dog": 0.4}, {"cat": 0.45, "dog": 0.61}, 5)
    svg = plots.render(plots.changes_chart(rows), "AP by class")
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"cat", "dog", "+21.0", "\u22125.0", "points"} <= set(texts)
    assert "var(--won)" in svg
    assert "var(--lost)" in svg
    curves = {"dense": np.linspace(1, 0, 101), "int8": np.linspace(0.9, 0, 101)}
    svg = plots.render(plots.curves_chart(curves, {"dense": 0, "int8": 1}), "curves")
    assert {"recall", "precision", "dense", "int8"} <= set(re.findall(r">([^<>]+)</text>", svg))
    assert "var(--c0)" in svg
    assert "var(--c1)" in svg


def test_a_scene_draws_and_tells_every_change() -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("markupsafe")
    from edgecv.report.scenes import SHOWN, scene

    pixels = np.zeros((480, 640, 3), np.uint8)
    made = [
        Change("lost", A, 0.9, 0, right=True),
        Change("moved", B, 0.5, 1, was=C, was_index=1),
        Change("gained", (-40, -40, 700, 30), 0.5, 2),
    ]
    shown = scene(pixels, made, ('<b>"cat"', "dog", "owl"))
    root = ElementTree.fromstring(shown["svg"])
    rectangles = [e.attrib for e in root.iter("rect") if e.get("fill") == "none"]
    assert len(rectangles) == 2 * 4  # each with its rim; the moved one twice
    widths = {float(r["x"]) + float(r["width"]) for r in rectangles}
    assert max(widths) <= 640
    assert [e.text for e in root.iter("text")] == ["1", "2", "3"]
    assert root.get("aria-label", "").startswith('lost: <b>"cat" 0.90, which was right; ')
    assert (len(shown["captions"]), shown["more"]) == (3, 0)
    assert scene(pixels, made * 9, LABELS)["more"] == 27 - SHOWN


def test_numbers_of_boxes_that_lie_on_one_another_are_all_read() -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("markupsafe")
    from edgecv.report.scenes import scene

    made = [Change("gained", (100 + i, 100 + i, 220, 220), 0.5, 0) for i in range(6)]
    made.append(Change("lost", (600, 0, 640, 30), 0.5, 1))  # in a corner of the picture
    svg = scene(np.zeros((480, 640, 3), np.uint8), made, LABELS)["svg"]
    marks = [e.attrib for e in ElementTree.fromstring(svg).iter("rect") if e.get("fill") != "none"]
    places = [[float(m[k]) for k in ("x", "y", "width", "height")] for m in marks]
    assert len(places) == len(made)
    for i, (x, y, wide, high) in enumerate(places):
        assert 0 <= x <= 640 - wide
        assert 0 <= y <= 480 - high
        for x2, y2, *_ in places[:i]:
            assert abs(x - x2) >= wide - 0.1 or abs(y - y2) >= high - 0.1


def test_maps_are_small_pictures_in_the_colours_of_their_classes() -> None:
    image = pytest.importorskip("PIL.Image")
    import base64
    import io

    from edgecv.report import pictures
    from edgecv.tasks.drawing import IGNORED, colour

    def opened(uri: str) -> np.ndarray:
        data = base64.b64decode(uri.partition(",")[2])
        return np.asarray(image.open(io.BytesIO(data)).convert("RGBA"))

    before = np.zeros((720, 960), np.uint8)
    before[:, 480:], before[360:] = 7, IGNORED
    shown = opened(pictures.mask(before))
    assert max(shown.shape) == 320
    assert tuple(shown[10, 10]) == (*colour(0), 255)
    assert tuple(shown[10, 300]) == (*colour(7), 255)
    assert shown[200, 10, 3] == 0
    after = before.copy()
    after[:60] = 3
    veil = opened(pictures.differing(before, after))
    assert (veil[:20, :, 3] > 0).all()
    assert (veil[20:, :, 3] == 0).all()
