"""What counts as a cause, and in which order causes stand."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgecv.diagnosis.why.findings import LEAST_SHARE, Finding, named, sorted_out


def finding(kind: str, ms: float | None, **options) -> Finding:
    return Finding(kind, "what", ("a",), ms, "change", **options)


def test_the_dearest_first_and_wrong_answers_before_all() -> None:
    found = [finding("small", 0.1), finding("large", 0.5), finding("nan", None, wrong=True)]
    causes, rest = sorted_out(found, 1.0)
    assert [f.kind for f in causes] == ["nan", "large", "small"]
    assert rest == []


def test_what_costs_nothing_is_no_cause() -> None:
    found = [
        finding("cheap", 0.01),
        finding("unknown", None),
        finding("faster-as-it-is", -0.2, bounds=(-0.3, -0.1)),
        finding("unsure", 0.2, bounds=(-0.1, 0.5)),
        finding("sure", 0.2, bounds=(0.1, 0.3)),
    ]
    causes, rest = sorted_out(found, 1.0)
    assert [f.kind for f in causes] == ["sure"]
    assert {f.kind for f in rest} == {"cheap", "unknown", "faster-as-it-is", "unsure"}


def test_without_a_clock_everything_stands() -> None:
    causes, rest = sorted_out([finding("static", None)], None)
    assert ([f.kind for f in causes], rest) == (["static"], [])


@given(st.lists(st.none() | st.floats(-1, 10), max_size=8), st.floats(0.01, 5))
def test_nothing_is_lost_and_causes_cost_their_share(costs: list, call_ms: float) -> None:
    found = [finding(f"k{i}", ms) for i, ms in enumerate(costs)]
    causes, rest = sorted_out(found, call_ms)
    assert sorted(f.kind for f in (*causes, *rest)) == sorted(f.kind for f in found)
    assert all(f.ms is not None and f.ms >= LEAST_SHARE * call_ms for f in causes)
    assert [f.ms for f in causes] == sorted((f.ms for f in causes), reverse=True)


def test_json_is_plain() -> None:
    data = json.loads(json.dumps(finding("a", 0.5, bounds=(0.4, 0.6)).to_json()))
    assert data["where"] == ["a"]
    assert data["bounds"] == [0.4, 0.6]


def test_names() -> None:
    assert named(["a"]) == "a"
    assert named("abcde") == "a, b, c and 2 more"
