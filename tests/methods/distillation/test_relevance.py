"""Where a detector finds nothing, what it says of boxes and classes hardly counts."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.methods.distillation.relevance import LEAST, probabilities, relevance, weights

BOX, SCORE, KIND, FAR = "box", "score", "kind", "far"


def values() -> dict[str, np.ndarray]:
    score = np.zeros((1, 1, 4, 4), np.float32)
    score[0, 0, 1, 2] = 0.5
    kind = np.full((1, 3, 4, 4), 0.2, np.float32)
    kind[0, 1] = 0.8
    return {
        BOX: np.ones((1, 4, 4, 4), np.float32), SCORE: score, KIND: kind,
        FAR: np.ones((1, 4, 2, 2), np.float32),
    }  # fmt: skip


def found(probable: set[str]) -> dict[str, np.ndarray]:
    held = values()
    return dict(zip(held, weights([*held], [*held.values()], probable), strict=True))


def test_a_box_matters_as_much_as_what_it_stands_for() -> None:
    by = found({SCORE, KIND})
    assert by[BOX][0, 0, 1, 2] == pytest.approx(LEAST + 0.5 * 0.8)
    assert by[BOX][0, 0, 0, 0] == pytest.approx(LEAST)


def test_a_probability_matters_as_much_as_what_it_is_multiplied_with() -> None:
    by = found({SCORE, KIND})
    assert by[SCORE] == pytest.approx(np.full((1, 1, 4, 4), LEAST + 0.8))
    assert by[KIND][0, 0, 1, 2] == pytest.approx(LEAST + 0.5)


def test_maps_of_another_size_and_maps_without_probabilities_matter_everywhere() -> None:
    assert found({SCORE, KIND})[FAR] == pytest.approx(np.ones(1))
    assert all(weight == pytest.approx(np.ones(1)) for weight in found(set()).values())
    assert found({SCORE})[SCORE] == pytest.approx(np.ones(1))


def test_a_row_matters_as_a_whole() -> None:
    (weight,) = weights(["logits"], [np.zeros((1, 10), np.float32)], set())
    assert weight == pytest.approx(np.ones(1))
    assert relevance([weight], (8, 8)) is None


def test_relevance_lies_where_its_map_does() -> None:
    by = found({SCORE, KIND})
    where = relevance([by[BOX]], (8, 8))
    assert where is not None
    assert where.shape == (8, 8)
    assert (where[2:4, 4:6] == where.max()).all()
    assert (where > LEAST * 1.01).sum() == 4


def test_probabilities_are_told_by_the_operator() -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node
    nodes = [node("Sigmoid", ["x"], ["a"]), node("Tanh", ["x"], ["b"]), node("Relu", ["x"], ["c"])]
    graph = onnx.helper.make_graph(nodes, "three", [], [])
    assert probabilities(onnx.helper.make_model(graph), ["a", "b", "c"]) == {"a"}
