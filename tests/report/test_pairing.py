"""Paired counts and intervals, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.report.pairing import cells_moved, classes_moved, paired

NAMES = ("ant", "bee", "cat")
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
FLOAT = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])
SMALL = np.array([0, 1, 0, 1, 2, 2, 2, 2, 1, 1])


def test_paired_counts() -> None:
    found = paired(FLOAT, SMALL, LABELS)
    counts = [found[k] for k in ("both_right", "only_float", "only_compressed", "both_wrong")]
    assert counts == [4, 3, 1, 2]
    assert found["changed"] == 5
    assert found["points"] == pytest.approx(-20.0)
    # McNemar: 2 P(X <= 1), X ~ Binomial(4, 1/2) = 2 (1 + 4) / 16
    assert found["p"] == pytest.approx(0.625)
    low, high = found["points_interval"]
    assert low <= -20.0 <= high


def test_equal_answers_are_no_evidence() -> None:
    found = paired(FLOAT, FLOAT, LABELS)
    assert (found["changed"], found["p"], found["points"]) == (0, 1.0, 0.0)


def test_classes_that_moved() -> None:
    assert classes_moved(FLOAT, SMALL, LABELS, NAMES) == [
        {"label": "ant", "lost": 1, "won": 1, "images": 3},
        {"label": "bee", "lost": 1, "won": 0, "images": 3},
        {"label": "cat", "lost": 1, "won": 0, "images": 4},
    ]


def test_cells_that_moved() -> None:
    found = {
        (c["truth"], c["answer"]): c["change"] for c in cells_moved(FLOAT, SMALL, LABELS, NAMES)
    }
    assert found == {("bee", "cat"): 1, ("cat", "ant"): -1, ("cat", "bee"): 2}


def test_an_output_without_a_name_is_called_by_its_number() -> None:
    (cell,) = cells_moved(np.array([0]), np.array([7]), np.array([0]), NAMES)
    assert cell == {"truth": "ant", "answer": "7", "change": 1}
