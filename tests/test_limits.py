"""Limits: met exactly when every figure is within, and the nearest is the nearest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecv.limits import NAMES, ROUNDING, Limits, expected_drop, figures_of, judge, sentence

amounts = st.one_of(st.none(), st.floats(0.01, 100.0))
some = st.fixed_dictionaries(dict.fromkeys(NAMES, amounts))


ONE_DROP = {**dict.fromkeys(NAMES), "accuracy_drop": 100.0}


@given(some, some)
@example({**ONE_DROP, "accuracy_drop": float(np.nextafter(100, 0))}, ONE_DROP)
def test_met_is_every_figure_known_and_within(limits: dict, figures: dict) -> None:
    asked = {k: v for k, v in limits.items() if v is not None}
    met = all(
        figures[k] is not None
        and (figures[k] >= v - ROUNDING if k == "sqnr_db" else figures[k] <= v + ROUNDING)
        for k, v in asked.items()
    )
    found = Limits(**limits)
    assert (found.distance(figures) == 0.0) == met
    assert bool(found) == bool(asked)
    assert found.missed(figures).keys() <= asked.keys()


def row(step: str, top1: float = 0.9, ms: float = 1.0, ratio: float = 0.5, **over: Any) -> dict:
    return {
        "step": step, "target": "cpu", "metric": {"value": top1, "reference": 0.9},
        "latency_ms": {"p50": ms}, "latency_ratio": ratio, "engine_bytes": 2_000_000, **over,
    }  # fmt: skip


def test_figures_of_a_row() -> None:
    assert figures_of(row("a", 0.897)) == {
        "accuracy_drop": pytest.approx(0.3), "latency_ms": 1.0, "latency_ratio": 0.5,
        "size_mb": 2.0, "sqnr_db": None,
    }  # fmt: skip
    unlabelled = row("a", metric=None, agreement=0.998)
    assert figures_of(unlabelled)["accuracy_drop"] == pytest.approx(0.2)
    unknown = row("a", metric=None, latency_ms=None, latency_ratio=None, engine_bytes=None)
    assert set(figures_of(unknown).values()) == {None}


def kept(db: float, role: str = "float") -> dict:
    """parity of a row whose worst output keeps that."""
    return {"graph": {"sqnr_db": 55.0}, "compiled": None, role: {"sqnr_db": db}}


def test_fidelity_is_a_least_and_its_nearest_the_highest() -> None:
    rows = [row("far", ms=0.1, parity=kept(12.0)), row("near", parity=kept(29.0))]
    verdict = judge(Limits(sqnr_db=30.0), rows)
    assert verdict["met"] == []
    assert verdict["nearest"]["row"] == "near.cpu"
    assert "sqnr_db 30 dB) met by nothing; nearest near.cpu: sqnr_db 29" in sentence(verdict)
    assert judge(Limits(sqnr_db=29.0), rows)["met"] == ["near.cpu"]


def test_fidelity_is_the_bundles_else_its_graphs() -> None:
    assert figures_of(row("a", parity=kept(21.0)))["sqnr_db"] == 21.0
    assert figures_of(row("a", parity=kept(48.0, "graph")))["sqnr_db"] == 48.0
    assert figures_of(row("a", parity=None))["sqnr_db"] is None


def test_the_fastest_of_those_that_meet_them_is_the_best() -> None:
    rows = [row("slow", ms=2.0), row("fast", ms=1.0), row("wrong", 0.5, ms=0.1)]
    verdict = judge(Limits(accuracy_drop=0.2, latency_ratio=0.5), rows)
    assert verdict["met"] == ["slow.cpu", "fast.cpu"]
    assert verdict["nearest"]["row"] == "fast.cpu"
    assert "met by slow.cpu, fast.cpu" in sentence(verdict)


def test_where_nothing_meets_them_the_nearest_is_shown() -> None:
    verdict = judge(Limits(accuracy_drop=0.2), [row("far", 0.8), row("near", 0.89)])
    assert verdict["met"] == []
    assert verdict["nearest"]["missed"] == {"accuracy_drop": pytest.approx(4.0)}
    assert "met by nothing; nearest near.cpu: accuracy_drop 1" in sentence(verdict)


def test_what_was_not_measured_meets_nothing() -> None:
    verdict = judge(Limits(latency_ms=1.0), [row("a", latency_ms=None)])
    assert verdict["nearest"]["missed"] == {"latency_ms": None}
    assert "not known" in sentence(verdict)
    assert math.isinf(Limits(latency_ms=1.0).distance({}))
    assert "nothing was made" in sentence(judge(Limits(latency_ms=1.0), []))


def test_a_limit_of_no_loss_has_a_nearest_too() -> None:
    limits = Limits(accuracy_drop=0.0)
    assert limits.distance({"accuracy_drop": -0.5}) == 0.0
    assert limits.distance({"accuracy_drop": 0.1}) < limits.distance({"accuracy_drop": 0.3})


def test_without_labels_a_flip_costs_what_fp32_preferred_its_own_class_by() -> None:
    logits = np.log(
        np.array([[0.7, 0.2, 0.1], [0.34, 0.33, 0.33], [0.1, 0.1, 0.8], [0.5, 0.4, 0.1]])
    )
    same = logits.argmax(1)
    assert expected_drop(same, logits) == 0.0
    flipped = same.copy()
    flipped[1] = 1  # a toss-up
    assert expected_drop(flipped, logits + 3) == pytest.approx(100 * 0.01 / 4)
    flipped[0] = 1  # 0.7 to 0.2
    assert expected_drop(flipped, logits) == pytest.approx(100 * 0.51 / 4)
    assert expected_drop(flipped, np.exp(logits)) == pytest.approx(100 * 0.51 / 4)
    assert (
        figures_of(row("a", metric=None, agreement=0.5, expected_drop=0.1))["accuracy_drop"] == 0.1
    )
