"""Numbers that can be checked on paper, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgecv.diagnosis.parity.report_rows import rung
from edgecv.errors import NotFiniteError, ParityError
from edgecv.fidelity import EXPORT, Tolerance, check, compare

REFERENCE = np.array([[-3.0, 3.0], [-5.0, 5.0]])


def test_equal_outputs_are_as_good_as_it_gets() -> None:
    found = compare(REFERENCE, REFERENCE)
    assert (found.sqnr_db, found.max_abs_error, found.top1_agreement) == (200.0, 0.0, 1.0)
    assert found.cosine == pytest.approx(1)


def test_agreement_counts_the_best_class() -> None:
    assert compare(REFERENCE, REFERENCE[:, ::-1]).top1_agreement == 0
    assert compare(REFERENCE, np.array([[-3.0, 3.0], [5.0, -5.0]])).top1_agreement == 0.5


def test_zeros_are_compared_without_a_crash() -> None:
    assert compare(REFERENCE * 0, REFERENCE * 0).sqnr_db == 200.0
    assert compare(REFERENCE, REFERENCE * 0).cosine == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("side", "says", "hint"),
    [
        (0, "the network itself answers NaN or infinity: '0' on 1 of 2 images", "as in training"),
        (1, "answers NaN or infinity where what it was made of does not: '0' on 1 of 2", "fp16"),
    ],
)
def test_outputs_that_are_no_numbers_are_refused(
    bad: float, side: int, says: str, hint: str
) -> None:
    arrays = [REFERENCE.copy(), REFERENCE.copy()]
    arrays[side][0, 0] = bad
    with pytest.raises(ParityError if side else NotFiniteError) as caught:
        check("export of dense", *arrays, Tolerance(-1000, 0))
    assert says in caught.value.what
    assert hint in caught.value.hint


def test_made_up_images_may_be_to_blame() -> None:
    bad = np.full((2, 2), np.nan)
    with pytest.raises(NotFiniteError, match=r"on 2 of 2 images.*made up: give images of your own"):
        check("x", bad, bad, EXPORT, made_up=True)


def test_too_much_noise_is_refused_with_the_figures() -> None:
    with pytest.raises(ParityError, match=r"quantize small: SQNR 20\.0 dB .*at least 21 dB") as e:
        check("quantize small", REFERENCE, 0.9 * REFERENCE, Tolerance(21, 0.5))
    assert e.value.exit_code == 1
    assert check("x", REFERENCE, 0.9 * REFERENCE, Tolerance(19, 0.5)).samples == 2


def test_too_little_agreement_is_refused_however_little_the_noise() -> None:
    rng = np.random.default_rng(0)
    ref = rng.normal(size=(40, 100))
    best, second = np.argsort(-ref, axis=1)[:, :2].T
    out = ref.copy()
    rows = np.arange(40)
    out[rows, best], out[rows, second] = ref[rows, second], ref[rows, best]  # the two exchanged
    found = compare(ref, out)
    assert found.sqnr_db > 14
    assert found.clear > 10
    with pytest.raises(ParityError, match=r"agreement 0\.000 on \d+ with a clear best class"):
        check("x", ref, out, Tolerance(-30, 0.8))
    check("x", ref, out, Tolerance(-30, 0.0))


def test_an_agreement_that_holds_is_no_part_of_what_is_wrong() -> None:
    ref = np.eye(8) + 0.01
    with pytest.raises(ParityError) as e:
        check("x", ref, 0.5 * ref, Tolerance(20, 0.9))
    assert "against at least 20 dB" in str(e.value)
    assert "agreement" not in str(e.value)
    assert "0.90" not in str(e.value)


def test_near_ties_may_go_either_way() -> None:
    ref = np.array([[1.0, 1.0 + 1e-9], [9.0, 1.0], [1.0, 9.0]])
    out = ref.copy()
    out[0] = ref[0, ::-1]
    assert check("x", ref, out, Tolerance(50, 0.98)).top1_agreement < 1


def test_of_made_up_images_the_distance_alone_counts() -> None:
    ref = np.random.default_rng(0).normal(size=(8, 4))
    noisy = ref + 0.9 * np.random.default_rng(1).normal(size=(8, 4))
    loose = Tolerance(-30, 1.0)
    with pytest.raises(ParityError):
        check("x", ref, noisy, loose)
    assert check("x", ref, noisy, loose, made_up=True).top1_agreement is None


def test_the_output_that_is_off_is_named() -> None:
    ref = np.random.default_rng(0).normal(size=(8, 4))
    kinds = {"scores": "classes", "box": "values"}
    with pytest.raises(ParityError, match="output 'box'"):
        check("x", (ref, ref), (ref, -ref), Tolerance(6, 0.8), kinds)


def test_the_record_is_plain_json() -> None:
    found = compare(REFERENCE.astype(np.float32), REFERENCE.astype(np.float32)).to_json()
    assert {k: type(v) for k, v in found.items()} == {
        "cosine": float, "max_abs_error": float, "sqnr_db": float, "top1_agreement": float,
        "samples": int, "clear": int, "agreed": int, "answers": int, "flat": bool,
    }  # fmt: skip


def test_a_rung_of_several_outputs_and_of_values_is_plain_json() -> None:
    ref = np.random.default_rng(0).normal(size=(8, 4))
    found = check("x", (ref, ref), (ref, ref), EXPORT, {"scores": "classes", "box": "values"})
    made = rung("export", "a", "b", found, EXPORT, None)
    assert made["agrees"]
    assert json.loads(json.dumps(made, allow_nan=False))["parity"]["outputs"]["box"]
