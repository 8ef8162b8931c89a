"""The one measure of fidelity: figures worked out on paper, and what they do not see."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.errors import ParityError
from edgecv.fidelity import Tolerance, require
from edgecv.runtime.fidelity import (
    BEST_DB,
    Energy,
    compare,
    compare_all,
    kind_of,
    kinds,
    width,
    without_agreement,
)
from edgecv.runtime.spec import TensorSpec

FEW = np.array([[3.0, -3.0], [-5.0, 5.0]])  # too few for a mean over them; rows without an offset
MANY = np.random.default_rng(0).normal(size=(40, 6))


def test_golden_numbers() -> None:
    found = compare(FEW, np.array([[3.0, -3.0], [-4.5, 4.5]]))
    assert found.sqnr_db == pytest.approx(10 * np.log10(68 / 0.5))
    assert found.cosine == pytest.approx((18 + 45) / np.sqrt(68 * (18 + 40.5)))
    assert (found.max_abs_error, found.top1_agreement, found.samples) == (0.5, 1.0, 2)


def test_noise_of_a_tenth_is_twenty_decibel() -> None:
    assert compare(FEW, 0.9 * FEW).sqnr_db == pytest.approx(20)


def test_what_is_the_same_for_every_image_is_no_signal() -> None:
    noise = 0.01 * np.random.default_rng(1).normal(size=MANY.shape)
    near = compare(MANY, MANY + noise, "values").sqnr_db
    assert compare(MANY + 1000, MANY + 1000 + noise, "values").sqnr_db == pytest.approx(near)
    varies = ((MANY - MANY.mean(0)) ** 2).sum()
    assert near == pytest.approx(10 * np.log10(varies / (noise**2).sum()))


def test_a_common_offset_of_scores_is_neither_signal_nor_noise() -> None:
    offset = np.random.default_rng(2).normal(size=(40, 1))
    noisy = MANY + 0.05 * np.random.default_rng(3).normal(size=MANY.shape)
    near = compare(MANY, noisy)
    assert compare(MANY, noisy + 10 * offset).sqnr_db == pytest.approx(near.sqnr_db)
    assert compare(MANY + 30 + offset, noisy).sqnr_db == pytest.approx(near.sqnr_db)
    assert compare(MANY, MANY + offset).sqnr_db == 200
    assert compare(MANY, MANY + offset, "values").sqnr_db < 10


def test_a_network_that_answers_the_same_for_all_is_measured_whole() -> None:
    same = np.tile([1.0, -2.0, 1.0], (8, 1))
    found = compare(same, 1.01 * same)
    assert found.flat
    assert found.sqnr_db == pytest.approx(40)
    assert found.answers == 1


def test_near_ties_are_told_and_not_judged() -> None:
    ref = np.array([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.01, 0.0]])
    out = np.array([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.0, 0.01]])
    found = compare(ref, out)
    assert (found.top1_agreement, found.clear, found.agreed) == (0.75, 3, 3)
    wrong = compare(ref, ref[:, ::-1])
    assert (wrong.clear, wrong.agreed, wrong.clear_agreement) == (3, 0, 0.0)
    assert compare(MANY, MANY, tie_db=60).clear > compare(MANY, MANY, tie_db=25).clear


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 10), "classes"), ((1, 10, 1, 1), "classes"), ((1, 1), "values"),
        ((1, 4, 32, 32), "map"), ((1, 1, 32, 32), "values"), ((1, 64, 4), "values"),
    ],
)  # fmt: skip
def test_kinds_by_shape(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(shape) == kind


def test_an_output_says_what_it_holds() -> None:
    last = TensorSpec("a", "float32", (1, 8, 8, 4), "NHWC")
    row = TensorSpec("b", "float32", (1, 2), kind="values")
    assert kinds([last, row]) == {"a": "map", "b": "values"}


def test_a_map_has_a_class_for_every_pixel() -> None:
    ref = np.random.default_rng(4).normal(size=(5, 3, 4, 4))
    out = ref.copy()
    out[:, :, 0, 0] = -ref[:, :, 0, 0]
    found = compare(ref, out)
    assert found.top1_agreement == pytest.approx(15 / 16)
    assert compare(ref, ref + 1e-6).clear > 60


def test_values_have_no_best_class() -> None:
    found = compare(MANY, MANY + 0.01, "values")
    assert (found.top1_agreement, found.clear, found.answers) == (None, 0, None)
    assert compare(MANY[:, :1], MANY[:, :1]).top1_agreement is None


def test_of_several_outputs_the_worst_counts_and_all_are_told() -> None:
    boxes = np.random.default_rng(5).normal(size=(40, 7, 4))
    found = compare_all(
        [MANY, boxes], [MANY, boxes * 0.9], {"scores": "classes", "boxes": "values"}
    )
    assert found.sqnr_db == found.outputs["boxes"].sqnr_db < 25
    assert found.outputs["scores"].sqnr_db == 200
    assert found.top1_agreement == 1
    assert set(found.to_json()["outputs"]) == {"scores", "boxes"}
    assert without_agreement(found).outputs["scores"].top1_agreement is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_as_bad_as_can_be(bad: float) -> None:
    out = MANY.copy()
    out[3, 2] = bad
    found = compare(MANY, out)
    assert (found.sqnr_db, found.max_abs_error) == (-200, np.inf)
    assert found.to_json()["max_abs_error"] is None


@given(st.integers(0, 1000), st.floats(1e-3, 1))
def test_more_noise_is_never_better(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    ref, noise = rng.normal(size=(2, 6, 4))
    less, more = compare(ref, ref + scale * noise / 2), compare(ref, ref + scale * noise)
    assert less.sqnr_db == pytest.approx(more.sqnr_db + 20 * np.log10(2))
    assert more.max_abs_error == pytest.approx(2 * less.max_abs_error)


def test_summed_image_by_image_it_is_the_same_figure() -> None:
    noisy = MANY + 0.1
    energy = Energy()
    for a, b in zip(MANY, noisy, strict=True):
        energy.add(a, b)
    assert energy.sqnr_db == compare(MANY, noisy, "values").sqnr_db


def detections(count: int = 12) -> np.ndarray:
    """(N, 50, 6): boxes in pixels, a probability, and what is zero for every image."""
    rng = np.random.default_rng(0)
    boxes, score = rng.uniform(0, 400, (count, 50, 4)), rng.uniform(0, 1, (count, 50, 1))
    return np.concatenate([boxes, score, np.zeros((count, 50, 1))], 2).astype(np.float32)


def parted(shape: tuple[int, ...], *groups: int, layout: str = "NC") -> dict[str, str]:
    return kinds([TensorSpec("out", "float32", shape, layout, groups=groups)])


def test_each_group_of_an_output_is_judged_by_its_own_numbers() -> None:
    ref = detections()
    out = ref.copy()
    out[..., 4] = 0.5  # the probabilities are lost
    whole = compare(ref, out, "values")
    found = compare_all([ref], [out], parted((1, 50, 6), 2, 0, 4, 5, 6))
    assert whole.sqnr_db > 50, "one figure over all says nothing of them"
    assert list(found.outputs) == ["out[0:4]", "out[4:5]", "out[5:6]"]
    assert found.sqnr_db == found.outputs["out[4:5]"].sqnr_db < 1
    assert found.outputs["out[0:4]"].sqnr_db == BEST_DB
    assert {p.axis for p in found.outputs.values()} == {2}
    assert found.to_json()["outputs"]["out[4:5]"]["axis"] == 2
    assert "axis" not in whole.to_json()
    with pytest.raises(ParityError, match=r"output 'out\[4:5\]': SQNR"):
        require("step", found, Tolerance(6.0, 0.0))
    require("step", found, Tolerance(6.0, 0.0, 1.0), {"out[4:5]": 1.0})  # rounding of its range


def test_a_group_of_zeros_is_lost_only_by_what_is_more_than_rounding() -> None:
    ref = detections()
    little, much = ref.copy(), ref.copy()
    little[..., 5] += 1e-6
    much[..., 5] += 1.0
    kind = parted((1, 50, 6), 2, 0, 4, 5, 6)
    near, far = (compare_all([ref], [x], kind) for x in (little, much))
    assert near.outputs["out[5:6]"].sqnr_db == BEST_DB
    assert far.outputs["out[5:6]"].sqnr_db < 0
    assert not far.flat, "the other groups vary"


def test_groups_of_a_map_are_values_and_classes_have_none() -> None:
    ref = np.random.default_rng(0).normal(size=(5, 7, 4, 4))
    found = compare_all([ref], [ref + 0.01], parted((1, 4, 4, 7), 1, 0, 2, 7, layout="NHWC"))
    assert [p.top1_agreement for p in found.outputs.values()] == [None, None]
    assert parted((1, 7), 1, 0, 2, 7) == {"out": "classes"}
    spec = TensorSpec("out", "float32", (1, 7, 4, 4), "NCHW", groups=(1, 0, 2, 7))
    assert width(spec) == 7
    assert TensorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert "groups" not in replace(spec, groups=None).to_json()
