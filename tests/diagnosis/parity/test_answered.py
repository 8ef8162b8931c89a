"""How many of a task's answers two forms of a network share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.diagnosis.parity.answered import Answered
from edgecv.runtime.archive import read_bundle
from tests.predicting.bundles import BOXES, SIZE, classifier, detector, segmenter


def rows(*scores: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """What `detector` answers, of images with these scores of its two boxes."""
    made = [[[*box, s, k] for k, (box, s) in enumerate(zip(BOXES, of, strict=True))]
            for of in scores]  # fmt: skip
    return (np.array(made, np.float32),)


def test_boxes(tmp_path: Path) -> None:
    answered = Answered(read_bundle(detector(tmp_path / "a.edgecv")))
    before = rows((0.9, 0.8), (0.9, 0.1))
    assert answered.shared(before, before) == {"of": "boxes", "both": 3, "either": 3}
    # one is lost (below the bundle's confidence of 0.25), one is gained
    after = rows((0.9, 0.2), (0.9, 0.5))
    assert answered.shared(before, after) == {"of": "boxes", "both": 2, "either": 4}
    after[0][0, 0, :2] += 20  # one lies elsewhere
    assert answered.shared(before, after) == {"of": "boxes", "both": 1, "either": 5}


def test_pixels(tmp_path: Path) -> None:
    answered = Answered(read_bundle(segmenter(tmp_path / "a.edgecv")))
    before = np.zeros((2, 3, SIZE, SIZE), np.float32)
    before[:, 1] = 1.0
    after = before.copy()
    after[1, 2, : SIZE // 4] = 2.0
    pixels = 2 * SIZE * SIZE
    found = answered.shared((before,), (after,))
    assert found == {"of": "pixels", "both": pixels * 7 // 8, "either": pixels}


def test_there_is_nothing_to_count(tmp_path: Path) -> None:
    scores = (np.zeros((2, 3), np.float32),)
    assert Answered(read_bundle(classifier(tmp_path / "a.edgecv"))).shared(scores, scores) is None
    of_boxes = Answered(read_bundle(detector(tmp_path / "b.edgecv")))
    good = rows((0.9, 0.8))
    assert of_boxes.shared(good, (*good, *good)) is None
    assert of_boxes.shared(good, (np.zeros((1, 2), np.float32),)) is None, "another network's"
