"""The safest and the fastest network of a run: the rules, on rows written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecv.report import choice


def row(step: str, ratio: float | None, points: float | None = 0.0, **more: Any) -> dict[str, Any]:
    """A compressed network on `cpu`; its points known to half a point."""
    return {
        "step": step, "target": "cpu", "is_reference": False, "latency_ratio": ratio,
        "spread": [ratio - 0.01, ratio + 0.01] if ratio else None, "points": points,
        "points_interval": None if points is None else [points - 0.5, points + 0.5],
        "judged_in": "top-1", "sqnr_db": 20.0, "engine_bytes": 1024, "smaller": 4.0,
        "bundle": f"bundles/{step}.cpu.edgecv", "busy": False, **more,
    }  # fmt: skip


def titles(rows: list[dict[str, Any]], judged_by: str = "value") -> dict[str, str]:
    return {card["title"]: card["step"] for card in choice.cards(rows, judged_by)}


def test_least_loss_and_least_time() -> None:
    rows = [row("whole", 0.8, -0.1), row("quick", 0.3, -2.0), row("middle", 0.5, -0.3)]
    assert titles(rows) == {"Safest": "whole", "Fastest": "quick"}


def test_a_gain_counts_as_no_loss_and_ties_go_to_the_quicker() -> None:
    rows = [row("gains", 0.8, 0.4), row("equal", 0.6, 0.0), row("quick", 0.3, -0.2)]
    assert titles(rows)["Safest"] == "equal"


def test_a_loss_that_may_be_chance_goes_before_a_smaller_one_that_is_sure() -> None:
    sure = row("sure", 0.4, -0.2, points_interval=[-0.3, -0.1])
    maybe = row("maybe", 0.8, -0.3)
    assert titles([sure, maybe])["Safest"] == "maybe"
    assert titles([sure, row("worse", 0.3, -4.0)]) == {"Safest": "sure", "Fastest": "worse"}


def test_one_network_may_be_both() -> None:
    (card,) = choice.cards([row("one", 0.4), row("two", 0.9, -3.0)])
    assert card["title"] == "Safest and fastest"
    assert card["file"] == "bundles/one.cpu.edgecv"
    assert card["lead"] == "no loss"
    assert card["lines"] == [
        "0.00 points of top-1 [−0.50, +0.50]",
        "2.50× faster than fp32: 0.40 of fp32's time [0.39, 0.41]",
        "1 KB, 4.00× smaller",
    ]


def test_what_did_not_run_and_the_reference_are_never_chosen() -> None:
    reference = row("dense", 0.1, 0.0, is_reference=True)
    assert choice.cards([reference, row("away", None)]) == []


def fp32(target: str = "cpu", p50: float = 1.0) -> dict[str, Any]:
    return row("dense", 1.0, 0.0, is_reference=True, smaller=1.0, target=target,
               latency_ms={"p50": p50}, bundle=f"bundles/dense.{target}.edgecv")  # fmt: skip


def beaten(step: str, ratio: float = 1.05, points: float = -2.5, **more: Any) -> dict[str, Any]:
    """Slower than fp32, less accurate, larger."""
    return row(step, ratio, points, **{"reference": "dense", "smaller": 0.9, **more})


def test_what_fp32_beats_on_every_axis_is_not_recommended() -> None:
    rows = [fp32(), beaten("slow", 1.3), beaten("small-int8")]
    (card,) = choice.cards(rows, folder=Path("runs/my shoe"))
    assert card["title"] == "Nothing here is worth shipping over fp32"
    assert (card["step"], card["lead"]) == ("dense", "ship fp32")
    assert card["file"] == "bundles/dense.cpu.edgecv"
    assert card["lines"] == [
        "Beside it, small-int8: 2.50 points lost",
        "−2.50 points of top-1 [−3.00, −2.00]",
        "1.05× slower than fp32: 1.05 of fp32's time [1.04, 1.06]",
        "1 KB, larger than fp32",
    ]
    assert card["command"] == "edgecv why 'runs/my shoe/bundles/small-int8.cpu.edgecv'"


@pytest.mark.parametrize(
    "more",
    [{"ratio": 0.9}, {"points": 2.5}, {"smaller": 1.1}, {"smaller": None}],
    ids=["faster", "more accurate", "smaller", "of unknown size"],
)
def test_what_wins_in_one_is_worth_a_look_and_alone_is_shown(more: dict[str, Any]) -> None:
    rows = [fp32(), beaten("worse", 1.01, -0.1), beaten("good", **more)]
    (card,) = choice.cards(rows)
    assert (card["title"], card["step"], card["command"]) == ("Safest and fastest", "good", "")


@pytest.mark.parametrize("more", [{"ratio": 0.995}, {"points": 0.4}, {"smaller": 1.0}])
def test_a_gain_that_may_be_chance_is_none(more: dict[str, Any]) -> None:
    (card,) = choice.cards([fp32(), beaten("even", **more)])
    assert card["title"] == choice.NOTHING


def test_without_labels_what_is_slower_and_larger_is_not_recommended() -> None:
    alone = beaten("far", points=0.0) | {"points": None, "points_interval": None}
    (card,) = choice.cards([fp32(), alone], "sqnr_db")
    assert (card["title"], card["step"]) == (choice.NOTHING, "dense")
    assert card["lines"][0] == "Beside it, far: 20.0 dB from fp32"


def test_of_several_targets_the_quickest_fp32_is_named() -> None:
    rows = [fp32(), fp32("openvino", 0.5), beaten("a"), beaten("a", 1.2, target="openvino")]
    (card,) = choice.cards(rows)
    assert card["file"] == "bundles/dense.openvino.edgecv"
    assert "1.20× slower" in card["lines"][2], "beside it, on the same engine"


def test_without_labels_the_outputs_decide() -> None:
    rows = [row("near", 0.8, None, sqnr_db=31.0), row("far", 0.3, None)]
    assert titles(rows, "sqnr_db") == {"Safest": "near", "Fastest": "far"}
    near, far = choice.cards(rows, "sqnr_db")
    assert near["lead"] == "31.0 dB from fp32"
    assert far["lines"][1] == "20.0 dB from fp32"
    assert titles([row("far", 0.3, None)]) == {"Fastest": "far"}, "nothing was judged"


def test_the_words() -> None:
    lossy, slow, even = row("a", 0.5, -2.0), row("b", 1.25, 0.1), row("c", 1.0, -0.2)
    assert [choice.cards([r])[0]["lead"] for r in (lossy, slow, even)] == [
        "2.00 points lost", "no loss", "no loss beyond chance",
    ]  # fmt: skip
    assert choice.cards([slow])[0]["lines"][1].startswith("1.25× slower than fp32: 1.25 of")
    assert choice.cards([even])[0]["lines"][1].startswith("as fast as fp32")
    assert choice.cards([row("d", 0.5, busy=True)])[0]["busy"]
