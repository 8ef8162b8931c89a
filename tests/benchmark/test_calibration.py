"""The fixed workload: the same products everywhere, on arrays that lie apart, in fresh memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgecv.benchmark import calibration
from edgecv.benchmark.calibration import ONE_THREAD, PRODUCTS, VERSION, Calibration

Job = tuple[np.ndarray, np.ndarray, np.ndarray]


def done(work: Any, patch: pytest.MonkeyPatch) -> list[Job]:
    """The (a, b, a b) of every product of one call, which is really made."""
    found: list[Job] = []
    real = np.matmul

    def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        found.append((a, b, out))
        return real(a, b, out=out)

    with patch.context() as inner:
        inner.setattr(calibration.np, "matmul", matmul)
        work()
    return found


def test_the_work_is_the_products_that_are_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = done(Calibration().open(), monkeypatch)
    assert [(a.shape[0], *b.shape) for a, b, _ in jobs] == [
        (rows, inner, columns)
        for times, rows, inner, columns in PRODUCTS
        for _ in range(times)
    ]  # fmt: skip
    rng, at = np.random.default_rng(VERSION), 0
    for times, rows, inner, columns in PRODUCTS:
        a = rng.standard_normal((rows, inner)).astype(np.float32)
        b = rng.standard_normal((inner, columns)).astype(np.float32)
        for a_here, b_here, c_here in jobs[at : at + times]:
            np.testing.assert_array_equal(a_here, a)
            np.testing.assert_array_equal(b_here, b)
            assert c_here.dtype == np.float32
            exact = a.astype(np.float64) @ b.astype(np.float64)
            np.testing.assert_allclose(c_here, exact, atol=1e-4 * inner**0.5)
        at += times


def test_the_workload_of_this_version_does_not_change() -> None:
    """Stored baselines hold latencies over it: another workload is another version."""
    assert VERSION == 1
    assert PRODUCTS == ((10, 128, 128, 128), (3, 64, 576, 196))


def test_half_of_the_work_is_each_shape() -> None:
    small, large = (times * rows * inner * columns for times, rows, inner, columns in PRODUCTS)
    assert small == pytest.approx(large, rel=0.1)


def test_every_call_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Calibration().open()
    first = [c.copy() for *_, c in done(work, monkeypatch)]
    second = [c for *_, c in done(work, monkeypatch)]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def spans(jobs: list[Job]) -> list[tuple[int, int]]:
    """First and last address of every array, each once, in order."""
    found = {np.lib.array_utils.byte_bounds(array) for job in jobs for array in job}
    return sorted(found)


def test_arrays_lie_apart_at_fixed_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [done(Calibration().open(), monkeypatch) for _ in range(2)]
    placed = [spans(jobs) for jobs in opened]
    assert len(placed[0]) == 3 * len(PRODUCTS)
    for spots in placed:
        assert all(end <= start for (_, end), (start, _) in pairwise(spots))
        assert spots[0][0] % 4096 == 0, "on a page"
        assert all(start % 64 == 0 for start, _ in spots), "on a cache line"
        assert len({start % 4096 for start, _ in spots}) == len(spots), "on other cache sets"
    first, second = ([start - spots[0][0] for start, _ in spots] for spots in placed)
    assert first == second, "wherever the arena is"


def test_opening_anew_takes_fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Calibration()
    one = done(subject.open(), monkeypatch)
    two = done(subject.open(), monkeypatch)
    subject.close()
    assert not set(spans(one)) & set(spans(two))
    for before, after in zip(one, two, strict=True):
        for a, b in zip(before, after, strict=True):
            assert not np.shares_memory(a, b)
            np.testing.assert_array_equal(a, b)


def test_it_has_a_name_and_closing_it_is_harmless() -> None:
    assert Calibration().name == "calibration"
    assert Calibration("pace").name == "pace"
    work = (subject := Calibration()).open()
    subject.close()
    work()


def test_every_library_that_numpy_multiplies_with_is_told_to_use_one_thread() -> None:
    assert set(ONE_THREAD.values()) == {"1"}
    assert {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} <= set(ONE_THREAD)
