"""Outputs of whole numbers, as ArgMax gives: equal or not, and never a distance."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv import fidelity
from edgecv.errors import ParityError
from edgecv.runtime.fidelity import compare, compare_all, kinds, without_agreement
from edgecv.runtime.spec import TensorSpec

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 20, (8, 50, 50))  # 20,000 in all
ENDS = {"labels": "indices"}


def wrong(count: int) -> np.ndarray:
    """The same with that many labels off by one, which a distance would hardly see."""
    found = LABELS.copy().reshape(-1)
    found[RNG.choice(found.size, count, replace=False)] += 1
    return found.reshape(LABELS.shape)


def test_the_type_says_so() -> None:
    specs = [TensorSpec("a", "int64", (1, 50, 50)), TensorSpec("b", "bool", (1, 4)),
             TensorSpec("c", "uint8", (1, 4), scale=0.1, zero_point=0),
             TensorSpec("d", "uint8", (1, 4)), TensorSpec("e", "float32", (1, 4)),
             TensorSpec("f", "int32", (1, 4), scale=0.1, zero_point=0)]  # fmt: skip
    assert [k == "indices" for k in kinds(specs).values()] == [1, 1, 0, 0, 0, 0]


def test_one_in_a_hundred_is_17_db() -> None:
    found = compare(LABELS, wrong(200), "indices")
    assert found.top1_agreement == pytest.approx(0.99)
    assert found.sqnr_db == pytest.approx(-10 * np.log10(2 * 0.01))
    assert compare(LABELS, LABELS, "indices").sqnr_db == 200.0
    assert found.to_json()["indices"] is True
    assert "indices" not in compare(LABELS, LABELS, "values").to_json()


@pytest.mark.parametrize(
    ("count", "tolerance"),
    [(15, fidelity.EXPORT), (15, fidelity.COMPILE_FP32), (1900, fidelity.COMPILE_INT8)],
)
@pytest.mark.parametrize("made_up", [False, True])
def test_near_ties_may_turn(count: int, tolerance: fidelity.Tolerance, made_up: bool) -> None:
    fidelity.check("step", LABELS, wrong(count), tolerance, ENDS, made_up)


@pytest.mark.parametrize(
    ("count", "tolerance"),
    [(30, fidelity.EXPORT), (30, fidelity.COMPILE_FP32), (2100, fidelity.COMPILE_INT8)],
)
@pytest.mark.parametrize("made_up", [False, True])
def test_more_is_refused(count: int, tolerance: fidelity.Tolerance, made_up: bool) -> None:
    with pytest.raises(ParityError, match="of its whole numbers are equal"):
        fidelity.check("step", LABELS, wrong(count), tolerance, ENDS, made_up)


def test_beside_other_outputs() -> None:
    scores = RNG.normal(size=(8, 5))
    both = {"scores": "classes", "labels": "indices"}
    found = compare_all([scores, LABELS], [scores, wrong(200)], both)
    assert found.sqnr_db == pytest.approx(17.0, abs=0.1)
    assert not found.indices
    assert found.outputs["labels"].indices
    assert without_agreement(found).outputs["labels"].top1_agreement == pytest.approx(0.99)
    with pytest.raises(ParityError, match="output 'labels'"):
        fidelity.check("step", [scores, LABELS], [scores, wrong(200)], fidelity.EXPORT, both)
