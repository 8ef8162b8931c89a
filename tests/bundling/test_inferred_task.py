"""What a network is for, where nobody says so."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.bundling.inferred_task import inferred
from edgecv.runtime.spec import TensorSpec

RNG = np.random.default_rng(0)


def task(name: str, shape: tuple[int, ...], known: bool = False, **kind: str) -> str | None:
    answers = (RNG.normal(size=(8, *shape[1:])).astype(np.float32),)
    return inferred([TensorSpec(name, "float32", shape, **kind)], answers, known)


@pytest.mark.parametrize(
    ("name", "shape"), [("logits", (1, 10)), ("output", (1, 1000)), ("classes", (1, 7, 1, 1))]
)
def test_a_row_of_scores_is_a_classifiers(name: str, shape: tuple[int, ...]) -> None:
    assert task(name, shape) == "classification"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embedding", (1, 100)), ("output", (1, 512)), ("bbox", (1, 4)), ("y", (1, 1)),
        ("landmarks", (1, 10)), ("mask", (1, 3, 8, 8)), ("boxes", (1, 100, 4)),
    ],
)  # fmt: skip
def test_what_is_no_row_of_scores_has_no_task(name: str, shape: tuple[int, ...]) -> None:
    assert task(name, shape) is None


def test_names_of_classes_settle_it() -> None:
    assert task("output", (1, 512), known=True) == "classification"
    assert task("output", (1, 512), known=True, kind="values") is None


def test_vectors_of_unit_length_are_no_scores() -> None:
    rows = RNG.normal(size=(8, 100))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert inferred([TensorSpec("output", "float32", (1, 100))], (rows,), False) is None


def test_of_several_outputs_all_are_given() -> None:
    outputs = [TensorSpec(n, "float32", (1, 10)) for n in ("a", "b")]
    assert inferred(outputs, (np.ones((8, 10)),) * 2, False) is None
