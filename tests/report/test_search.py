"""What a search tried, on the page and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecv.report import gather, page, search, summary

OPTIONS = {
    "calibration": "mse", "rounding": "gptq", "bias_correction": True, "equalization": False,
    "weight_bits": 8, "keep_float": [],
}  # fmt: skip
SEARCH: dict[str, Any] = {
    "limits": {"accuracy_drop": 0.2}, "met": True, "chosen": 1,
    "tried": [
        {"options": OPTIONS, "sqnr_db": 18.0, "agreement": 0.9, "met": False,
         "figures": {"accuracy_drop": 1.5}},
        {"options": OPTIONS | {"keep_float": ["stem<b>", "head"]}, "sqnr_db": 25.0,
         "agreement": 0.99, "met": True, "figures": {"accuracy_drop": 0.1}},
        {"options": OPTIONS | {"rounding": "adaround"}, "sqnr_db": 17.0, "agreement": 0.9,
         "met": None, "figures": None},
    ],
    "refused": [{"options": OPTIONS | {"equalization": True}, "reason": "no <pair>"}],
}  # fmt: skip
ROW = {"target": "cpu", "step": "small", "search": SEARCH}


def test_every_try_is_a_line_and_the_taken_one_is_marked() -> None:
    (found,) = search.searches([ROW, {"target": "cpu", "step": "dense"}])
    assert [line["chosen"] for line in found["lines"]] == [False, True, False, False]
    assert [line["cells"][2] for line in found["lines"]] == ["1.5", "0.1", "", ""]
    assert "2 float layers" in found["lines"][1]["setting"]
    assert "no <pair>" in found["lines"][3]["setting"]


@pytest.mark.parametrize("damage", [{"tried": 3}, {"limits": []}, {"chosen": "1"}, {"met": None}])
def test_damage_is_left_out(damage: dict[str, Any]) -> None:
    assert search.searches([{**ROW, "search": SEARCH | damage}]) == []


def test_the_page_and_the_terminal_show_it(finished: Any) -> None:
    data = gather.gather(Path(finished.out))
    assert data["searches"] == []
    assert 'id="search"' not in page.html(Path(finished.out), data)
    data["searches"] = search.searches([ROW])
    shown = page.html(Path(finished.out), data)
    assert shown.count('id="search"') == 1
    assert "(taken)" in shown
    assert "stem&lt;b&gt;, head" in shown
    assert "no &lt;pair&gt;" in shown
    assert "stem<b>" not in shown
    assert any("taken" in line and "25.0" in line for line in summary.lines(data))
