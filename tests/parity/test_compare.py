"""Numbers that can be checked on paper, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.errors import ParityError
from edgecv.parity import Tolerance, check, compare

REFERENCE = np.array([[3.0, 4.0], [0.0, 5.0]])


def test_golden_numbers() -> None:
    found = compare(REFERENCE, np.array([[3.0, 4.0], [0.0, 4.5]]))
    assert found.sqnr_db == pytest.approx(10 * np.log10(50 / 0.25))
    assert found.cosine == pytest.approx((9 + 16 + 22.5) / np.sqrt(50 * (9 + 16 + 20.25)))
    assert (found.max_abs_error, found.top1_agreement, found.samples) == (0.5, 1.0, 2)


def test_equal_outputs_are_as_good_as_it_gets() -> None:
    found = compare(REFERENCE, REFERENCE)
    assert (found.sqnr_db, found.max_abs_error, found.top1_agreement) == (200.0, 0.0, 1.0)
    assert found.cosine == pytest.approx(1)


def test_agreement_counts_the_best_class() -> None:
    assert compare(REFERENCE, REFERENCE[:, ::-1]).top1_agreement == 0
    assert compare(REFERENCE, np.array([[3.0, 4.0], [5.0, 0.0]])).top1_agreement == 0.5


def test_noise_of_a_tenth_is_twenty_decibel() -> None:
    assert compare(REFERENCE, 0.9 * REFERENCE).sqnr_db == pytest.approx(20)


def test_zeros_are_compared_without_a_crash() -> None:
    assert compare(REFERENCE * 0, REFERENCE * 0).sqnr_db == 200.0
    assert compare(REFERENCE, REFERENCE * 0).cosine == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_outputs_that_are_no_numbers_are_refused(bad: float, side: int) -> None:
    arrays = [REFERENCE.copy(), REFERENCE.copy()]
    arrays[side][0, 0] = bad
    with pytest.raises(ParityError, match=r"export of dense.* hold NaN or Inf"):
        check("export of dense", *arrays, Tolerance(-1000, 0))


def test_too_much_noise_is_refused_with_the_figures() -> None:
    with pytest.raises(ParityError, match=r"quantize small: SQNR 20\.0 dB .*at least 21 dB") as e:
        check("quantize small", REFERENCE, 0.9 * REFERENCE, Tolerance(21, 0.5))
    assert e.value.exit_code == 1
    assert check("x", REFERENCE, 0.9 * REFERENCE, Tolerance(19, 0.5)).samples == 2


def test_too_little_agreement_is_refused_unless_the_noise_is_tiny() -> None:
    noisy = np.array([[4.0, 3.0], [0.0, 5.0]])  # 14 dB, one of two agrees
    with pytest.raises(ParityError, match=r"agreement 0\.500"):
        check("x", REFERENCE, noisy, Tolerance(6, 0.8))
    check("x", REFERENCE, noisy, Tolerance(6, 0.5))
    tie = np.array([[1.0, 1.0 + 1e-9]])
    check("x", tie, tie[:, ::-1], Tolerance(50, 0.98))


@given(st.integers(0, 1000), st.floats(1e-3, 1))
def test_more_noise_is_never_better(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    ref, noise = rng.normal(size=(2, 6, 4))
    less, more = compare(ref, ref + scale * noise / 2), compare(ref, ref + scale * noise)
    assert less.sqnr_db == pytest.approx(more.sqnr_db + 20 * np.log10(2))
    assert more.max_abs_error == pytest.approx(2 * less.max_abs_error)


def test_the_record_is_plain_json() -> None:
    found = compare(REFERENCE.astype(np.float32), REFERENCE.astype(np.float32)).to_json()
    assert {k: type(v) for k, v in found.items()} == {
        "cosine": float, "max_abs_error": float, "sqnr_db": float, "top1_agreement": float,
        "samples": int,
    }  # fmt: skip
