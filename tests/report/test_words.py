"""Numbers as words."""

from __future__ import annotations

import numpy as np

from edgecv.report import words
from edgecv.runtime.fidelity import compare

ROWS = np.eye(5)


def test_best_classes_are_told_of_a_classifier_alone() -> None:
    found = compare(ROWS, ROWS + 0.01 * np.arange(5)).to_json()
    assert words.fidelity(found, False, True).endswith("dB, top-1 agreement 1.000 on 5 images")
    said = words.fidelity(found, True, False)
    assert "agreement" not in said
    assert said.endswith("dB on 5 made-up images")


def test_of_whole_numbers_it_is_told_how_many_are_equal() -> None:
    labels = np.arange(10).reshape(5, 2)
    other = labels.copy()
    other[0, 0] = 7
    found = compare(labels, other, "indices").to_json()
    assert ", 90.0% of its whole numbers equal on 5 images" in words.fidelity(found, False, False)


def test_figures_beside_a_metric_have_names_and_an_order() -> None:
    keys = words.figures(["own_figure", "recall", "ap_small", "ap50", "ap50"])
    assert keys == ["ap50", "ap_small", "recall", "own_figure"]
    assert [*map(words.figure, keys)] == ["AP50", "AP small", "recall", "own figure"]
    assert words.figure("f1") == "F1"
    assert words.figure("pixel_accuracy") == "pixel accuracy"


def test_a_columns_own_name_stays_as_it_is() -> None:
    assert words.figure("mae yaw_angle") == "MAE yaw_angle"
    assert words.figure("rmse ap") == "RMSE ap"
    assert words.figure("ap_small") == "AP small"
